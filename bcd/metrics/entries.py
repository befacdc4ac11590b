"""COCO results and annotations: checked, and brought as arrays into the order in which they are matched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict

import numpy as np

from bcd.errors import UserError
from bcd.metrics.matching import places

if TYPE_CHECKING:
    from bcd.data.objects.annotations import Instances, RunLengths, Segmentation

Record = Mapping[str, Any]


class Result(TypedDict):
    """A detection in COCO's terms; `bbox` is x, y, width, height."""

    image_id: int
    category_id: int
    score: float
    bbox: NotRequired[Sequence[float]]
    segmentation: NotRequired[Segmentation]


class Frame(NamedTuple):
    """The images that are evaluated, with their height and width, and the categories; both by ascending id."""

    images: dict[int, tuple[int, int]]
    categories: list[int]


class Entries(NamedTuple):
    """n results or annotations, cell by cell.

    cell    int64 (n,), ascending: image * number of categories + category, by their places in the frame
    value   float64 (n,), the score of a result, the area of an annotation
    crowd   bool (n,)
    boxed   bool (n,), whether there is a box
    box     float64 (n, 4), x, y, width, height
    masks   n segmentations where they are compared, else none
    """

    cell: np.ndarray
    value: np.ndarray
    crowd: np.ndarray
    boxed: np.ndarray
    box: np.ndarray
    masks: Sequence[Segmentation]

    def take(self, which: np.ndarray) -> Entries:
        masks = [self.masks[n] for n in which.tolist()] if self.masks else []
        cell, value, crowd, boxed, box = (values[which] for values in self[:-1])
        return Entries(cell, value, crowd, boxed, box, masks)


def frame(truth: Instances, image_ids: Sequence[int]) -> Frame:
    """Raises UserError for an image that `truth` does not have."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    if unknown := [image for image in image_ids if image not in sizes]:
        raise UserError(f"image {unknown[0]} is not in the annotations; evaluate the split that they describe")
    categories = sorted({category["id"] for category in truth["categories"]})
    return Frame({image: sizes[image] for image in sorted(image_ids)}, categories)


def objects_of(truth: Instances, framed: Frame, fields: Sequence[str]) -> Entries:
    """The annotations of the images in their order; see `_read`."""
    records = [annotation for annotation in truth["annotations"] if annotation["image_id"] in framed.images]
    entries = _read("annotation", "area", records, framed, fields)
    return entries.take(np.argsort(entries.cell, kind="stable"))


def detections_of(results: Sequence[Result], framed: Frame, fields: Sequence[str], most: int) -> Entries:
    """The `most` best results of each cell, best first and equal ones in their order; see `_read`."""
    entries = _read("result", "score", results, framed, fields)
    order = np.lexsort((-entries.value, entries.cell))
    return entries.take(order[places(entries.cell[order]) < most])


def _read(what: str, value: str, records: Sequence[Record], framed: Frame, fields: Sequence[str]) -> Entries:
    """Raises UserError for what pycocotools would drop in silence or fail on without naming the record."""
    try:
        return _columns(value, records, framed, fields)
    except (KeyError, TypeError, ValueError):
        # Whole columns are read ten times as fast as records are checked, but do not say which record is wrong.
        for number, record in enumerate(records):
            if fault := _fault(record, framed, [value, *fields]):
                name = f"{what} {record.get('id', number)} of image {record['image_id']}"
                raise UserError(name + fault) from None
        raise


def _columns(value: str, records: Sequence[Record], framed: Frame, fields: Sequence[str]) -> Entries:
    """Raises KeyError, TypeError or ValueError where `_fault` finds something."""
    image, category = ({name: n for n, name in enumerate(names)} for names in framed)
    cell = np.fromiter(
        (image[r["image_id"]] * len(category) + category[r["category_id"]] for r in records), np.int64, len(records)
    )
    numbers = np.fromiter(chain.from_iterable(_numbers(value, records)), np.float64, 6 * len(records)).reshape(-1, 6)
    boxed = numbers[:, 1] == 1
    if ("bbox" in fields and not boxed.all()) or not np.isfinite(numbers if value == "score" else numbers[:, 1:]).all():
        raise ValueError("no box, or one that is not finite")
    masks = [r["segmentation"] for r in records] if "segmentation" in fields else []
    sizes = list(framed.images.values())
    for mask, own in zip(masks, (cell // max(len(category), 1)).tolist(), strict=False):
        if not mask or (isinstance(mask, dict) and tuple(mask["size"]) != sizes[own]):
            raise ValueError("no mask, or one of another size")
    crowd = np.array(
        [int(r.get("iscrowd", 0)) != 0 for r in records] if value == "area" else np.zeros(len(records)), bool
    )
    return Entries(cell, numbers[:, 0], crowd, boxed, numbers[:, 2:], masks)


def _numbers(value: str, records: Sequence[Record]) -> Iterator[tuple[float, ...]]:
    """Of each record the value, whether it has a box, and the box."""
    for record in records:
        box = record.get("bbox")
        if box is None or not len(box):
            yield record[value], 0, 0, 0, 0, 0
        else:
            x, y, width, height = box
            yield record[value], 1, x, y, width, height


def _fault(record: Record, framed: Frame, fields: Sequence[str]) -> str:
    """What is wrong with a record, as the end of a sentence; "" when nothing is."""
    size, category = framed.images.get(record["image_id"]), record["category_id"]
    if size is None:
        return ": this image is not evaluated; give the predictions of the evaluated split"
    if category not in framed.categories:
        return f": unknown category {category}; evaluate the model on the dataset it was trained for"
    for field in fields:
        if (given := record.get(field)) is None or (isinstance(given, list | tuple | dict) and not given):
            return f" has no {field}; add it, or evaluate without the kind that needs it"
    box = () if record.get("bbox") is None else record["bbox"]
    if len(box) != 4 and (len(box) or "bbox" in fields):
        return ": the box is not x, y, width, height; correct it"
    if not all(map(math.isfinite, (*box, record.get("score", 0.0)))):
        return ": the box or score is not finite; train again with a lower learning rate"
    code = record.get("segmentation")
    if "segmentation" in fields and isinstance(code, dict) and tuple(code["size"]) != size:
        return f": the mask is not {size[0]} x {size[1]} px; give masks in the image's own size"
    return ""


def areas(entries: Entries, framed: Frame) -> np.ndarray:
    """Of the boxes, or of the masks of entries without a box; float64 (n,)."""
    found = entries.box[:, 2] * entries.box[:, 3]
    if not entries.boxed.all():
        from bcd.data.objects import masks

        without = np.flatnonzero(~entries.boxed)
        found[without] = masks.areas(codes(entries.take(without), framed))
    return found


def codes(entries: Entries, framed: Frame) -> list[RunLengths]:
    """The masks, compressed."""
    from bcd.data.objects.masks import run_length_code

    sizes = list(framed.images.values())
    images = (entries.cell // len(framed.categories)).tolist()
    return [run_length_code(mask, *sizes[image]) for mask, image in zip(entries.masks, images, strict=True)]
