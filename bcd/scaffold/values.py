"""What the stored values of masks mean: classes, ignored pixels, and their names where files or people give them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bcd.data import decode
from bcd.data.tree import Tree
from bcd.errors import UserError
from bcd.scaffold import classes as names_of
from bcd.scaffold.look import MOST_COLOURS


class Values(NamedTuple):
    """Stored values, as an entry writes them -> how many masks have them; and those of a palette's index 255."""

    masks: Counter[str]
    last: set[str]


def stored_values(files: Tree, paths: Sequence[str]) -> Values:
    """What masks hold: numbers, or colours where they are RGB or have a palette that is not grey.

    Raises UserError for a mask that is neither, and for more values than there may be classes.
    """
    found, last = Counter[str](), set[str]()
    kinds = {path: _kind(files.read(path)) for path in paths}
    colours = any(kind in ("RGB", "palette") for kind in kinds.values())
    for path in paths:
        data = files.read(path)
        if not colours:
            found.update(map(str, np.unique(decode.read_label(data, path)).tolist()))
            continue
        rows = np.unique(decode.read_colours(data, path).reshape(-1, 3), axis=0)
        found.update(" ".join(map(str, row)) for row in rows.tolist())
        if kinds[path] == "palette" and 255 in (numbers := decode.read_label(data, path)):
            last.add(" ".join(map(str, decode.read_colours(data, path)[numbers == 255][0].tolist())))
        if len(found) > MOST_COLOURS:
            raise UserError(
                f"the masks up to {path} hold {len(found)} colours, more than there may be classes; save them without "
                "smoothing, as PNG"
            )
    return Values(found, last)


def _kind(data: bytes) -> str:
    """The mode of an image file, and `palette` for one that has colours."""
    with Image.open(io.BytesIO(data), formats=decode.STORED) as image:
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

    names: of the classes, by whoever asks. coloured, listed: a file, and the names in it by colour or by id.
    """
    stored = sorted(values.masks, key=lambda value: [int(number) for number in value.split()])
    if unknown := [value for value in void if value not in stored]:
        raise UserError(f"--void {unknown[0]}: no mask holds it; they hold {', '.join(stored)}")
    ignored = [*void, *(value for value in stored if value in values.last and value not in void)]
    if " " in stored[0]:
        return _of_colours(stored, names, ignored, coloured)
    return _of_numbers(stored, names, ignored, listed)


def _of_colours(
    stored: Sequence[str], names: Sequence[str], ignored: list[str], coloured: tuple[str, Mapping[str, str]] | None
) -> tuple[list[str], dict[str, Any], list[str]]:
    known = dict(coloured[1]) if coloured and not names else {}
    ignored = [*ignored, *(one for one in stored if known.get(one, "").lower() in names_of.VOID and one not in ignored)]
    kept = [value for value in stored if value not in ignored]
    if known and all(value in known for value in kept):
        assert coloured is not None
        said = [f"{len(kept)} colours have the names that {coloured[0]} gives them"]
        held = {known[value] for value in kept}
        in_order = [name for name in dict.fromkeys(known.values()) if name in held]
        return in_order, _values(kept, known, ignored), said + _void(ignored)
    called, said = _called(kept, names, "colours")
    return called, _values(kept, dict(zip(kept, called, strict=True)), ignored), said + _void(ignored)


def _of_numbers(
    stored: Sequence[str], names: Sequence[str], ignored: list[str], listed: tuple[str, Sequence[str]] | None
) -> tuple[list[str], dict[str, Any], list[str]]:
    numbers = [int(value) for value in stored if value not in ignored]
    if len(numbers) > 2 and numbers[-1] == 255 and numbers[-2] < 200:
        ignored, numbers = [*ignored, "255"], numbers[:-1]
    if listed and not names and numbers[-1] < len(listed[1]):
        known = {str(number): listed[1][number] for number in numbers}
        ignored += [value for value, name in known.items() if name.lower() in names_of.VOID]
        kept = [value for value in known if value not in ignored]
        said = [f"{len(kept)} values have the names that {listed[0]} has in their lines"]
        return list(dict.fromkeys(known[value] for value in kept)), _values(kept, known, ignored), said + _void(ignored)
    kept = [str(number) for number in numbers]
    called, said = _called(kept, names, "values")
    if kept == [str(number) for number in range(len(kept))]:
        given = [value for value in ignored if value != "255"]
        return called, {"void": given} if given else {}, said + _void(ignored)
    return called, _values(kept, dict(zip(kept, called, strict=True)), ignored), said + _void(ignored)


def _called(kept: Sequence[str], names: Sequence[str], what: str) -> tuple[list[str], list[str]]:
    """A name for each stored value, and what is said of that."""
    shown = ", ".join(kept[:8]) + (f" and {len(kept) - 8} more" if len(kept) > 8 else "")
    if names:
        if len(names) != len(kept):
            raise UserError(
                f"--classes has {len(names)} names, and masks hold {len(kept)} {what} ({shown}); name each, and say by "
                "--void which are ignored"
            )
        return list(names), [f"{len(kept)} {what} ({shown}) have the names of --classes"]
    if len(kept) == 2:
        return ["background", "object"], [f"binary masks: {kept[0]} is background, {kept[1]} the object"]
    called = [f"class-{value.replace(' ', '-')}" for value in kept]
    return called, [f"{len(kept)} {what} ({shown}) are taken for classes; name them by --classes, and say by --void "
                    "which mean nothing"]  # fmt: skip


def _values(kept: Sequence[str], known: Mapping[str, str], ignored: Sequence[str]) -> dict[str, Any]:
    values = {int(value) if value.isdecimal() else value: known[value] for value in kept}
    return {"values": values} | ({"void": [int(v) if v.isdecimal() else v for v in ignored]} if ignored else {})


def _void(ignored: Sequence[str]) -> list[str]:
    return [f"{', '.join(ignored)} {'is' if len(ignored) == 1 else 'are'} ignored"] if ignored else []
