"""COCO results and annotations: checked, and brought into the order in which they are matched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict

import numpy as np

from bcd.errors import UserError

if TYPE_CHECKING:
    from bcd.data.objects.annotations import Instances, RunLengths, Segmentation

Sizes = Mapping[int, tuple[int, int]]
SEVERAL = (list, tuple, dict)


class Result(TypedDict):
    """A detection in COCO's terms; `bbox` is x, y, width, height."""

    image_id: int
    category_id: int
    score: float
    bbox: NotRequired[Sequence[float]]
    segmentation: NotRequired[Segmentation]


class Entries(NamedTuple):
    """Results or annotations, ordered by cell and score; the equal ones as they came.

    cell   int64 (n,), a number for each image and category
    score  float64 (n,), 0 for annotations
    """

    records: Sequence[Mapping[str, Any]]
    cell: np.ndarray
    score: np.ndarray

    def take(self, which: np.ndarray) -> Entries:
        return Entries([self.records[n] for n in which.tolist()], self.cell[which], self.score[which])


def ordered(records: Sequence[Mapping[str, Any]], images: Sequence[int], categories: Sequence[int]) -> Entries:
    """Entries of these images and categories, cells in their order, best score first."""
    place, index = ({name: n for n, name in enumerate(names)} for names in (images, categories))
    cell = np.array([place[r["image_id"]] * len(index) + index[r["category_id"]] for r in records], np.int64)
    score = np.array([r.get("score", 0.0) for r in records], np.float64)
    return Entries(records, cell, score).take(np.lexsort((-score, cell)))


def sizes_of(truth: Instances, image_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Height and width of each image to evaluate."""
    known = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    if unknown := [image for image in image_ids if image not in known]:
        raise UserError(f"image {unknown[0]} is not in the annotations; evaluate the split that they describe")
    return {image: known[image] for image in image_ids}


def check(
    what: str, records: Sequence[Mapping[str, Any]], sizes: Sizes, categories: set[int], fields: Sequence[str]
) -> None:
    """Refuse what pycocotools would drop in silence or fail on without naming the record."""
    if _is_faultless(records, sizes, categories, fields):
        return
    for number, record in enumerate(records):
        if fault := _fault(record, sizes, categories, fields):
            raise UserError(f"{what} {record.get('id', number)} of image {record['image_id']}{fault}")


def _is_faultless(
    records: Sequence[Mapping[str, Any]], sizes: Sizes, categories: set[int], fields: Sequence[str]
) -> bool:
    """Whether `_fault` finds nothing in any record, by whole columns and so ten times as fast."""
    if not ({r["image_id"] for r in records} <= sizes.keys() and {r["category_id"] for r in records} <= categories):
        return False
    for values in ([r.get(field) for r in records] for field in fields):
        if any(value is None or (isinstance(value, SEVERAL) and not value) for value in values):
            return False
    boxes = [() if (box := r.get("bbox")) is None else box for r in records]
    numbers = chain(chain.from_iterable(boxes), (r.get("score", 0.0) for r in records))
    if not np.isfinite(np.fromiter(numbers, np.float64)).all():
        return False
    return "segmentation" not in fields or all(
        tuple(code["size"]) == sizes[r["image_id"]] for r in records if isinstance(code := r["segmentation"], dict)
    )


def _fault(record: Mapping[str, Any], sizes: Sizes, categories: set[int], fields: Sequence[str]) -> str:
    """What is wrong with a record, as the end of a sentence; "" when nothing is."""
    size, category = sizes.get(record["image_id"]), record["category_id"]
    if size is None:
        return ": this image is not evaluated; give the predictions of the evaluated split"
    if category not in categories:
        return f": unknown category {category}; evaluate the model on the dataset it was trained for"
    for field in fields:
        if _is_absent(record.get(field)):
            return f" has no {field}; add it, or evaluate without the kind that needs it"
    box = record.get("bbox")
    if not all(map(math.isfinite, (record.get("score", 0.0), *(() if box is None else box)))):
        return ": the box or score is not finite; train again with a lower learning rate"
    code = record.get("segmentation")
    if "segmentation" in fields and isinstance(code, dict) and tuple(code["size"]) != size:
        return f": the mask is not {size[0]} x {size[1]} px; give masks in the image's own size"
    return ""


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, SEVERAL) and not value)


def areas(records: Sequence[Mapping[str, Any]], sizes: Sizes) -> np.ndarray:
    """Of the boxes, or of the masks of those without a box; float64 (n,)."""
    boxes = [() if (box := r.get("bbox")) is None else box for r in records]
    found = np.array([box[2] * box[3] if len(box) else math.nan for box in boxes], np.float64)
    without = np.flatnonzero(np.isnan(found)).tolist()
    if without:
        from bcd.data.objects import masks

        found[without] = masks.areas(codes([records[n] for n in without], sizes))
    return found


def codes(records: Sequence[Mapping[str, Any]], sizes: Sizes) -> list[RunLengths]:
    """The masks, compressed."""
    from bcd.data.objects.masks import run_length_code

    return [run_length_code(record["segmentation"], *sizes[record["image_id"]]) for record in records]
