"""COCO's matching of detections and objects, for all IoU thresholds and areas at once and all images side by side."""

from typing import NamedTuple

import numpy as np

from bcd.metrics.average_precision import AREAS, THRESHOLDS, bit

# As pycocotools has them (`Params.setDetParams`).
IOUS = np.linspace(0.5, 0.95, THRESHOLDS)
# All, small, medium and large, in pixels; limits belong to both sides.
AREA_RANGES = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])
EVERY_BIT = (1 << AREAS * THRESHOLDS) - 1
_AREA_BITS = np.array([((1 << THRESHOLDS) - 1) << bit(area, 0) for area in range(AREAS)])


class Pairs(NamedTuple):
    """Detections with objects of the same image and category that they overlap by the lowest of IOUS or more.

    detection  int64 (P,), ascending
    object     int64 (P,)
    iou        float64 (P,)
    """

    detection: np.ndarray
    object: np.ndarray
    iou: np.ndarray


def within_areas(area: np.ndarray) -> np.ndarray:
    """Areas (n,) in pixels as int64 (n,) masks, see `bit`: set at all thresholds of the ranges that hold them."""
    outside = (area[:, None] < AREA_RANGES[:, 0]) | (area[:, None] > AREA_RANGES[:, 1])
    return ~outside @ _AREA_BITS


def match(pairs: Pairs, cells: np.ndarray, regular: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The greedy matching of pycocotools `COCOeval.evaluateImg`.

    Detections come in their order. Each takes, of the objects that are free and reach the threshold, the one of
    highest IoU, and of equal ones the last. It takes one to be ignored only if there is no other. A crowd is always
    free.

    Each threshold and area is one bit. Equal turns of all cells are taken at once, as cells share no detection.

    Args:
        pairs: indices into the following; detections and objects in their order.
        cells: int64 (D,), ascending: a number for each detection's image and category.
        regular: int64 (M,) bit masks, see `bit`: where an object is to be found. Elsewhere it is ignored.
        crowd: bool (M,), whether an object is one.

    Returns:
        matched and ignored, int64 (D,) bit masks: where a detection has an object, and one that is ignored.
    """
    detection, object_, bits = _attempts(pairs, regular)
    turn = places(cells[detection])
    turns = np.split(np.argsort(turn, kind="stable"), np.cumsum(np.bincount(turn))[:-1])
    free = np.full(len(regular), EVERY_BIT)
    taken = np.where(crowd, 0, EVERY_BIT)
    matched, ignored = np.zeros((2, len(cells)), np.int64)
    for at in turns:
        d, o = detection[at], object_[at]
        new = bits[at] & free[o] & ~matched[d]
        matched[d] |= new
        ignored[d] |= new & ~regular[o]
        free[o] &= ~(new & taken[o])
    return matched, ignored


def _attempts(pairs: Pairs, regular: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections, objects and the bits at which they may match, in the order in which that is tried."""
    reach = ((1 << np.searchsorted(IOUS, pairs.iou, side="right")) - 1) * sum(1 << bit(a, 0) for a in range(AREAS))
    where_regular = regular[pairs.object]
    # A pair is tried where its object is regular, and after all of these where it is ignored.
    bits = np.concatenate([reach & where_regular, reach & ~where_regular])
    second = np.repeat([False, True], len(reach))
    detection, object_, iou = (np.tile(values, 2) for values in pairs)
    order = np.lexsort((-object_, -iou, second, detection))
    order = order[bits[order] != 0]
    return detection[order], object_[order], bits[order]


def places(ascending: np.ndarray) -> np.ndarray:
    """Each entry's place among the entries of its value, from 0; int64 (n,)."""
    return np.arange(len(ascending)) - np.searchsorted(ascending, ascending)
