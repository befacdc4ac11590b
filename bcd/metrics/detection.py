"""COCO matching of detections and objects, kept per image; `bcd.metrics.average_precision` makes metrics of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bcd.metrics.average_precision import AREAS, SUFFIX, bit, summarise_detection
from bcd.metrics.entries import Entries, Frame, Result, areas, codes, detections_of, frame, objects_of
from bcd.metrics.matching import EVERY_BIT, Pairs, match, places, within_areas
from bcd.metrics.overlap import Shapes, boundary_pairs, box_pairs, mask_pairs, mask_shapes

if TYPE_CHECKING:
    from bcd.data.objects.annotations import Instances

__all__ = ["KINDS", "MAX_DETECTIONS", "Result", "detection_rows", "summarise_detection"]

KINDS = tuple(SUFFIX)
# Of one category in one image.
MAX_DETECTIONS = 100
# What the rows of an image hold beyond its last detection.
NOTHING: dict[str, np.generic] = {
    "category": np.int16(-1), "score": np.float64("nan"), "matched": np.int64(0), "ignored": np.int64(0),
}  # fmt: skip


def detection_rows(
    truth: Instances, results: Sequence[Result], image_ids: Sequence[int], kinds: Sequence[str]
) -> dict[str, np.ndarray]:
    """Match detections with objects by the COCO protocol, with the very results of pycocotools' `COCOeval`.

    Ids of annotations play no part, where pycocotools takes an object with id 0 for no match. A detection's area
    decides whether it is ignored when unmatched. It is that of its box for all kinds, as `COCO.loadRes` has it, and
    that of its mask if it has no box.

    Args:
        truth: COCO instances: images (id, height, width), categories (id), annotations (image_id, category_id, bbox
            xywh, area, iscrowd, segmentation as polygons or run-length code; without masks no segmentation).
        results: COCO results: image_id, category_id, score, bbox xywh and, for masks, a run-length segmentation.
        image_ids: the I images to evaluate, as rows in this order.
        kinds: some of KINDS: IoU of boxes, of masks, or the smaller of mask IoU and Boundary IoU (Cheng et al. 2021,
            dilation ratio 0.02).

    Returns:
        `order` int32 (I,), each image's place by ascending id, in which equal scores are ranked; and for each kind,
        with K categories by ascending id and D the most detections of an image:
        `<kind>.category` int16 (I, D), -1 where there is no detection; `<kind>.score` float64 (I, D), nan there;
        `<kind>.matched` and `<kind>.ignored` int64 (I, D), one bit for each area and IoU threshold, see `bit`;
        `<kind>.positives` int32 (I, K * AREAS), objects to be found.

    Raises:
        UserError: a result or an annotation names an image that is not evaluated or an unknown category, lacks a field
            that a kind needs, is not finite, or has a mask of another size than its image.
        ValueError: no image, an image given twice, or an unknown kind.
    """
    if not len(image_ids) or len(set(image_ids)) != len(image_ids):
        raise ValueError("image_ids must name at least one image, and each once")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"unknown kind {unknown[0]!r}; choose from {KINDS}")
    framed = frame(truth, image_ids)
    fields = ["bbox" if kind == "box" else "segmentation" for kind in kinds]
    objects = objects_of(truth, framed, fields)
    detections = detections_of(results, framed, fields, MAX_DETECTIONS)
    regular = np.where(objects.crowd, 0, within_areas(objects.value))
    own_area = within_areas(areas(detections, framed))

    images, categories = len(framed.images), len(framed.categories)
    image, category = np.divmod(detections.cell, max(categories, 1))
    positives = _positives(objects.cell, regular, images * categories).reshape(images, -1)
    order = np.argsort(np.argsort(image_ids, kind="stable"))
    rows = {"order": order.astype(np.int32)}
    for kind, pairs in _pairs(detections, objects, framed, kinds).items():
        matched, ignored = match(pairs, detections.cell, regular, objects.crowd)
        # An unmatched detection is ignored where its own area is out of range.
        ignored |= EVERY_BIT & ~(matched | own_area)
        flat = {"category": category, "score": detections.value, "matched": matched, "ignored": ignored}
        for name, values in flat.items():
            rows[f"{kind}.{name}"] = _by_image(values, image, images, NOTHING[name])[order]
        rows[f"{kind}.positives"] = positives[order]
    return rows


def _pairs(detections: Entries, objects: Entries, framed: Frame, kinds: Sequence[str]) -> dict[str, Pairs]:
    """The pairs of each kind. Only cells that hold both detections and objects are looked at."""
    d = np.flatnonzero(np.isin(detections.cell, objects.cell))
    o = np.flatnonzero(np.isin(objects.cell, detections.cell))
    own, other, crowd = detections.take(d), objects.take(o), objects.crowd[o]
    found: dict[str, Pairs] = {}
    if "box" in kinds:
        found["box"] = box_pairs(Shapes(own.cell, own.box), Shapes(other.cell, other.box), crowd)
    if "mask" in kinds or "boundary" in kinds:
        drawn, true = (mask_shapes(side.cell, codes(side, framed)) for side in (own, other))
        found["mask"] = mask_pairs(drawn, true, crowd)
        if "boundary" in kinds:
            found["boundary"] = boundary_pairs(found["mask"], drawn, true, crowd)
    return {kind: Pairs(d[found[kind].detection], o[found[kind].object], found[kind].iou) for kind in kinds}


def _positives(cell: np.ndarray, regular: np.ndarray, cells: int) -> np.ndarray:
    """Objects to be found in each cell and area, int32 (cells, AREAS)."""
    count = np.zeros((cells, AREAS), np.int32)
    np.add.at(count, cell, np.stack([regular >> bit(area, 0) & 1 for area in range(AREAS)], 1))
    return count


def _by_image(values: np.ndarray, image: np.ndarray, images: int, nothing: np.generic) -> np.ndarray:
    """Values of the detections of ascending images, one image a row, filled up with `nothing`, whose type they get."""
    column = places(image)
    rows = np.full((images, column.max(initial=-1) + 1), nothing)
    rows[image, column] = values
    return rows
