"""What the stored values of masks mean: classes, ignored pixels, and their names where files or people give them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bcd.data import decode
from bcd.data.tree import Tree
from bcd.errors import UserError
from bcd.scaffold import classes as names_of
from bcd.scaffold.look import MOST_COLOURS

SEVERAL = 5  # masks of which one alone holds a value: with fewer, it may well be a class
FEW = 0.01  # share of a mask's pixels below which a value is more likely a slip of the tool than a class


class Place(NamedTuple):
    """A mask that holds a value, in how many of its pixels."""

    mask: str
    pixels: int
    of: int

    def __str__(self) -> str:
        return f"{self.mask}, in {self.pixels:,} of its {self.of:,} pixels"


class Values(NamedTuple):
    """Stored values as an entry writes them.

    masks  value -> how many masks hold it; read: of so many
    first  value -> the first mask that does
    last   those of a palette's index 255
    """

    masks: Counter[str]
    read: int
    first: dict[str, Place]
    last: set[str]


def stored_values(files: Tree, paths: Sequence[str]) -> Values:
    """What masks hold: numbers, or colours where they are RGB or have a palette that is not grey.

    Raises UserError for a mask that is neither or cannot be read, and for more values than there may be classes.
    """
    found, first, last = Counter[str](), dict[str, Place](), set[str]()
    kinds = {path: _kind(files.read(path), path) for path in paths}
    colours = any(kind in ("RGB", "palette") for kind in kinds.values())
    for path in paths:
        data = files.read(path)
        stored = decode.read_colours(data, path).reshape(-1, 3) if colours else decode.read_label(data, path).ravel()
        held, counts = np.unique(stored, axis=0, return_counts=True)
        for value, pixels in zip(held.tolist(), counts.tolist(), strict=True):
            said = " ".join(map(str, value)) if colours else str(value)
            found[said] += 1
            first.setdefault(said, Place(path, pixels, len(stored)))
        if kinds[path] == "palette" and 255 in (numbers := decode.read_label(data, path)):
            last.add(" ".join(map(str, decode.read_colours(data, path)[numbers == 255][0].tolist())))
        if len(found) > MOST_COLOURS:
            raise UserError(
                f"the masks up to {path} hold {len(found)} colours, more than there may be classes; save them without "
                "smoothing, as PNG"
            )
    return Values(found, len(paths), first, last)


def _kind(data: bytes, path: str) -> str:
    """The mode of an image file, and `palette` for one that has colours."""
    with decode.opened(data, path) as image:
        if image.mode != "P":
            return image.mode
        entries = np.reshape(image.getpalette() or [0, 0, 0], (-1, 3))
        return "palette" if (entries != entries[:, :1]).any() else "P"


def meant(
    values: Values,
    names: Sequence[str],
    void: Collection[str],
    coloured: tuple[str, Mapping[str, str]] | None,
    listed: tuple[str, Sequence[str]] | None,
) -> tuple[list[str], dict[str, Any], list[str]]:
    """The classes, the fields `values` and `void` of `Masks`, and what is to be said of them.

    Raises UserError for masks of one class, and for values that nobody names and that are likely slips.

    names: of the classes, by whoever asks. coloured, listed: a file, and the names in it by colour or by id.
    """
    stored = sorted(values.masks, key=lambda value: [int(number) for number in value.split()])
    if unknown := [value for value in void if value not in stored]:
        raise UserError(f"--void {unknown[0]}: no mask holds it; they hold {', '.join(stored)}")
    last = [value for value in stored if value in values.last and value not in void] if len(stored) > 2 else []
    ignored = [*void, *last]
    if len(stored) - len(ignored) < 2:
        said = f" ({_void(ignored)[0]})" if ignored else ""
        raise UserError(
            f"the masks hold no more than {', '.join(stored)}{said}, "
            "so there is one class at most, and nothing to tell apart; give the masks a second value, such as 0 for "
            "the background"
        )
    if " " in stored[0]:
        return _of_colours(values, stored, names, ignored, coloured)
    return _of_numbers(values, stored, names, ignored, listed)


def _of_colours(
    values: Values,
    stored: Sequence[str],
    names: Sequence[str],
    ignored: list[str],
    coloured: tuple[str, Mapping[str, str]] | None,
) -> tuple[list[str], dict[str, Any], list[str]]:
    known = dict(coloured[1]) if coloured and not names else {}
    ignored = [*ignored, *(one for one in stored if known.get(one, "").lower() in names_of.VOID and one not in ignored)]
    kept = [value for value in stored if value not in ignored]
    if coloured and any(value in known for value in kept):
        _require_names(values, [value for value in kept if value not in known], coloured[0])
        said = [f"{len(kept)} colours have the names that {coloured[0]} gives them"]
        held = {known[value] for value in kept}
        in_order = [name for name in dict.fromkeys(known.values()) if name in held]
        return in_order, _values(kept, known, ignored), said + _void(ignored)
    called, said = _called(values, kept, names, "colours")
    return called, _values(kept, dict(zip(kept, called, strict=True)), ignored), said + _void(ignored)


def _of_numbers(
    values: Values,
    stored: Sequence[str],
    names: Sequence[str],
    ignored: list[str],
    listed: tuple[str, Sequence[str]] | None,
) -> tuple[list[str], dict[str, Any], list[str]]:
    numbers = [int(value) for value in stored if value not in ignored]
    if len(numbers) > 2 and numbers[-1] == 255 and numbers[-2] < 200:
        ignored, numbers = [*ignored, "255"], numbers[:-1]
    beyond = [number for number in numbers if listed and number >= len(listed[1])]
    if listed and not names and 2 * len(beyond) < len(numbers):  # else the file is about something else
        _require_names(values, [str(number) for number in beyond], listed[0])
        known = {str(number): listed[1][number] for number in numbers}
        ignored += [value for value, name in known.items() if name.lower() in names_of.VOID]
        kept = [value for value in known if value not in ignored]
        said = [f"{len(kept)} values have the names that {listed[0]} has in their lines"]
        return list(dict.fromkeys(known[value] for value in kept)), _values(kept, known, ignored), said + _void(ignored)
    kept = [str(number) for number in numbers]
    called, said = _called(values, kept, names, "values")
    if kept == [str(number) for number in range(len(kept))]:
        given = [value for value in ignored if value != "255"]
        return called, {"void": given} if given else {}, said + _void(ignored)
    return called, _values(kept, dict(zip(kept, called, strict=True)), ignored), said + _void(ignored)


def _require_names(values: Values, nameless: Sequence[str], path: str) -> None:
    """Raise UserError for a value that a file with names does not name."""
    if nameless:
        value = nameless[0]
        raise UserError(
            f"{path} has no name for the value {value}, which is in {values.first[value]}; add it there, mend the "
            f"mask, or write --void {_quoted(value)} if such pixels mean nothing"
        )


def _called(values: Values, kept: Sequence[str], names: Sequence[str], what: str) -> tuple[list[str], list[str]]:
    """A name for each stored value, and what is said of that.

    Raises UserError where names do not suffice, or nobody names a value that looks like a slip.
    """
    shown = ", ".join(kept[:8]) + (f" and {len(kept) - 8} more" if len(kept) > 8 else "")
    alone = [value for value in kept if values.masks[value] == 1 and values.read >= SEVERAL]
    where = [f"{value} is in one mask alone, {values.first[value]}" for value in alone]
    if names:
        if len(names) != len(kept):
            raise UserError(
                f"--classes has {len(names)} names, and masks hold {len(kept)} {what} ({shown}); name each, and say by "
                f"--void which are ignored{''.join(f' ({one})' for one in where[:1])}"
            )
        return list(names), [f"{len(kept)} {what} ({shown}) have the names of --classes"]
    if slips := [value for value in alone if values.first[value].pixels < FEW * values.first[value].of]:
        raise UserError(
            f"of {values.read} masks, the value {slips[0]} is in one alone, {values.first[slips[0]]}; mend that mask, "
            f"write --void {_quoted(slips[0])} if such pixels mean nothing, or name all {len(kept)} {what} by "
            "--classes if it is a class"
        )
    if len(kept) == 2:
        return ["background", "object"], [f"binary masks: {kept[0]} is background, {kept[1]} the object"]
    called = [f"class-{value.replace(' ', '-')}" for value in kept]
    return called, [f"{len(kept)} {what} ({shown}) are taken for classes; name them by --classes, and say by --void "
                    "which mean nothing", *(f"{one}; --void {_quoted(value)} ignores it"
                                            for value, one in zip(alone, where, strict=True))]  # fmt: skip


def _quoted(value: str) -> str:
    """A value as a shell takes it for one word."""
    return f"'{value}'" if " " in value else value


def _values(kept: Sequence[str], known: Mapping[str, str], ignored: Sequence[str]) -> dict[str, Any]:
    values = {int(value) if value.isdecimal() else value: known[value] for value in kept}
    return {"values": values} | ({"void": [int(v) if v.isdecimal() else v for v in ignored]} if ignored else {})


def _void(ignored: Sequence[str]) -> list[str]:
    return [f"{', '.join(ignored)} {'is' if len(ignored) == 1 else 'are'} ignored"] if ignored else []
