"""What `bcd.data.check` found in a dataset: what of it is doubtful, as sentences, and all of it, as a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from bcd.config.schema.base import TaskName

if TYPE_CHECKING:
    from bcd.data.check import Labels, SplitCheck, Things

MUCH_IGNORED = 0.5  # share of a split's pixels from which on it is said that they are ignored
MANY_CROWDS = 0.05  # share of a split's objects from which on it is said that crowds are left out
MANY_AREAS = 0.01  # share of a split's objects from which on it is said that their areas are wrong
NAMED = 5  # classes that a sentence names before it only counts them


def warnings(check: Mapping[str, Any], task: TaskName | None = None, splits: Collection[str] = ()) -> list[str]:
    """What a reader must know of the splits (all, by default) where they are used for a task (any, by default).

    check: that of a `Manifest`; {} for a dataset that was never looked at, of which nothing is known.
    """
    found: Mapping[str, SplitCheck] = check.get("splits", {})
    chosen = [split for split in found if split in splits or not splits]
    idle = _idle(check) if task != "semantic" else []
    of_splits = [sentence for split in chosen for sentence in _doubts(split, found[split], task, idle)]
    return [*_unused(idle), *of_splits]


def _idle(check: Mapping[str, Any]) -> list[str]:
    """Classes that no annotation uses, in any split, of a dataset whose entry describes its files.

    Those of an official layout stay: what a mirror has may be a sample. Nothing is said where there are crowds, whose
    classes are not counted.
    """
    objects = [one["objects"] for one in check.get("splits", {}).values() if "objects" in one]
    if not objects or not check["of"].get("coco") or any(one["crowds"] for one in objects):
        return []
    return [name for name in objects[0]["classes"] if not any(sum(one["classes"][name]) for one in objects)]


def _unused(idle: Sequence[str]) -> Iterator[str]:
    if idle:
        named = ", ".join(f"'{name}'" for name in idle[:NAMED])
        more = f" and {len(idle) - NAMED} more classes" if len(idle) > NAMED else ""
        them = "it" if len(idle) == 1 else "them"
        yield f"no annotation uses {named}{more}; take {them} out of `classes` in params/datasets.yaml"


def _doubts(split: str, found: SplitCheck, task: TaskName | None, idle: Collection[str]) -> Iterator[str]:
    if not found["images"]:
        yield f"the split '{split}' has no images"
    if found["turned"]:
        yield f"{found['turned']} images of the split '{split}' have an orientation tag and are read turned by it"
    if found.get("in_train"):
        yield f"{found['in_train']} of {found['images']} images of the split '{split}' are in 'train', too"
    if "labels" in found and task in (None, "semantic"):
        yield from _of_labels(split, found["labels"])
    if "objects" in found and task != "semantic":
        yield from _of_objects(split, found["objects"], task, idle)


def _of_labels(split: str, labels: Labels) -> Iterator[str]:
    share = labels["ignored"] / labels["pixels"]
    if share == 1:
        yield f"every pixel of the split '{split}' is ignored"
        return
    if share >= MUCH_IGNORED:
        yield f"{share:.0%} of the pixels of the split '{split}' are ignored"
    yield from _lacking("pixel", split, {name: images for name, (images, _) in labels["classes"].items()})


def _of_objects(split: str, objects: Things, task: TaskName | None, idle: Collection[str]) -> Iterator[str]:
    crowds, alone = objects["crowds"], sum(sum(sizes) for sizes in objects["classes"].values())
    if crowds and not alone:
        yield f"all {crowds} objects of the split '{split}' are crowds, which evaluation ignores"
        return
    if crowds >= MANY_CROWDS * (crowds + alone) > 0:
        yield f"{crowds} of {crowds + alone} objects of the split '{split}' are crowds, neither learnt nor evaluated"
    areas = objects.get("areas", 0)
    boxes = objects.get("boxes", 0)
    if boxes >= MANY_AREAS * (crowds + alone) > 0:
        yield (
            f"{boxes} of {crowds + alone} objects of the split '{split}' have a box elsewhere than their mask; "
            "a box is the left, the top, the width and the height, in pixels"
        )
    if areas >= MANY_AREAS * (crowds + alone) > 0:
        yield (
            f"{areas} of {crowds + alone} objects of the split '{split}' have an `area` that does not fit their box or "
            "mask, so they may count as of a wrong size"
        )
    if objects["masks"] and task in (None, "instance"):
        yield _maskless(split, objects)
    counts = {name: sum(sizes) for name, sizes in objects["classes"].items() if name not in idle}
    yield from _lacking("object", split, counts)


def _maskless(split: str, objects: Things) -> str:
    return f"the split '{split}' does not serve instance segmentation, as {objects['masks']}"


def unusable(check: Mapping[str, Any], task: TaskName, splits: Collection[str]) -> list[str]:
    """Why splits cannot be used for a task at all, one sentence each; `check` as in `warnings`."""
    found: Mapping[str, SplitCheck] = check.get("splits", {})
    objects = {split: found[split]["objects"] for split in splits if "objects" in found.get(split, {})}
    return [_maskless(split, one) for split, one in objects.items() if one["masks"] and task == "instance"]


def _lacking(what: str, split: str, counts: Mapping[str, int]) -> Iterator[str]:
    absent = [name for name, number in counts.items() if not number]
    if len(absent) == 1:
        yield f"the class '{absent[0]}' has no {what} in the split '{split}'"
    elif absent:
        more = ", ..." if len(absent) > NAMED else ""
        named = ", ".join(absent[:NAMED])
        yield f"{len(absent)} of {len(counts)} classes have no {what} in the split '{split}' ({named}{more})"


def table(check: Mapping[str, Any]) -> list[str]:
    """Lines with everything that was found: the splits first, then the classes."""
    splits: Mapping[str, SplitCheck] = check["splits"]
    rows = [["", *splits], *([name, *map(cell, splits.values())] for name, cell in SPLIT_ROWS.items())]
    for part, heading, cell in PARTS:
        counted = next((found[part]["classes"] for found in splits.values() if part in found), {})
        classes = [name for name in check["of"]["classes"] if name in counted]
        rows += [[heading, *("" for _ in splits)]] if classes else []
        rows += [[f"  {name}", *(cell(found, name) if part in found else "" for found in splits.values())]
                 for name in classes]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _label_cell(found: SplitCheck, name: str) -> str:
    images, pixels = found["labels"]["classes"][name]
    return f"{images}, {pixels / found['labels']['pixels']:.2%}"


def _object_cell(found: SplitCheck, name: str) -> str:
    return " / ".join(map(str, found["objects"]["classes"][name]))


def _range(bounds: list[int]) -> str:
    return "-".join(map(str, dict.fromkeys(bounds)))


def _ignored(found: SplitCheck) -> str:
    return f"{found['labels']['ignored'] / found['labels']['pixels']:.2%}" if "labels" in found else ""


def _crowds(found: SplitCheck) -> str:
    return str(found["objects"]["crowds"]) if "objects" in found else ""


def _areas(found: SplitCheck) -> str:
    return str(found["objects"]["areas"]) if "objects" in found else ""


SPLIT_ROWS: dict[str, Callable[[SplitCheck], str]] = {
    "images": lambda found: str(found["images"]),
    "height": lambda found: _range(found["height"]),
    "width": lambda found: _range(found["width"]),
    "with an orientation tag": lambda found: str(found["turned"]),
    "pixels ignored": _ignored,
    "crowds": _crowds,
    "areas that do not fit": _areas,
}
PARTS: tuple[tuple[Literal["labels", "objects"], str, Callable[[SplitCheck, str], str]], ...] = (
    ("labels", "images with the class, share of pixels", _label_cell),
    ("objects", "small / medium / large objects", _object_cell),
)
