"""Which detections and objects overlap enough to match: by their boxes, their masks, or the masks' boundaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bcd.metrics.boundary import band_width, boundary
from bcd.metrics.matching import IOUS, Pairs, places

if TYPE_CHECKING:
    from bcd.data.objects.annotations import RunLengths

BOUNDARY_RATIO = 0.02
# Looked at together: the arrays stay in the processor's cache, and memory does not grow with the images.
PAIRS, PIXELS = 1 << 14, 1 << 20


class Shapes(NamedTuple):
    """What detections or objects look like.

    cell   int64 (n,), ascending: a number for each image and category
    box    float64 (n, 4), x, y, width, height
    codes  n compressed masks, of which `box` are the boxes; none where boxes are compared
    """

    cell: np.ndarray
    box: np.ndarray
    codes: Sequence[RunLengths] = ()


def mask_shapes(cell: np.ndarray, codes: Sequence[RunLengths]) -> Shapes:
    from bcd.data.objects.masks import boxes

    return Shapes(cell, boxes(codes), codes)


def box_pairs(detections: Shapes, objects: Shapes, crowd: np.ndarray) -> Pairs:
    """The pairs by the IoU of boxes; with a crowd, it is the share of the detection that lies in the crowd.

    crowd: bool (M,), of the objects.
    """
    found = []
    for d, o in _neighbours(detections, objects):
        own, other = (box[:, 2] * box[:, 3] for box in (detections.box[d], objects.box[o]))
        iou = _iou(_shared(detections.box[d], objects.box[o]), own, other, crowd[o])
        found.append(_enough(d, o, iou))
    return _joined(found)


def mask_pairs(detections: Shapes, objects: Shapes, crowd: np.ndarray) -> Pairs:
    """The same by the IoU of masks."""
    from pycocotools import mask as coco_mask

    from bcd.data.objects.masks import areas

    own_area, other_area = areas(detections.codes), areas(objects.codes)
    found = []
    for d, o in _neighbours(detections, objects):
        # No more pixels than these are in both masks, which spares most pairs the look at them.
        most = np.minimum(np.minimum(own_area[d], other_area[o]), _shared(detections.box[d], objects.box[o]))
        near = _iou(most, own_area[d], other_area[o], crowd[o]) >= IOUS[0]
        d, o = d[near], o[near]
        both = [
            coco_mask.merge([detections.codes[i], objects.codes[j]], True)
            for i, j in zip(d.tolist(), o.tolist(), strict=True)
        ]
        found.append(_enough(d, o, _iou(areas(both), own_area[d], other_area[o], crowd[o])))
    return _joined(found)


def boundary_pairs(pairs: Pairs, detections: Shapes, objects: Shapes, crowd: np.ndarray) -> Pairs:
    """The pairs of `mask_pairs` by the smaller of mask IoU and Boundary IoU; by mask IoU alone with a crowd, as in the
    official bowenc0221/boundary-iou-api `coco_instance_api/cocoeval.py`."""
    iou = pairs.iou.copy()
    single = np.flatnonzero(~crowd[pairs.object])
    d, o = pairs.detection[single], pairs.object[single]
    pixels = detections.box[d, 2] * detections.box[d, 3] + objects.box[o, 2] * objects.box[o, 3]
    for block in _blocks(pixels, PIXELS):
        bands = zip(_bands(detections, d[block]), _bands(objects, o[block]), strict=True)
        iou[single[block]] = np.minimum(iou[single[block]], [own.iou(other) for own, other in bands])
    return _enough(pairs.detection, pairs.object, iou)


def _bands(shapes: Shapes, which: np.ndarray) -> list[_Band]:
    from bcd.data.objects.masks import within

    numbers, again = np.unique(which, return_inverse=True)
    codes, boxes = [shapes.codes[n] for n in numbers.tolist()], shapes.box[numbers]
    bands = [
        _Band(box[0], box[1], boundary(inside, band_width(tuple(code["size"]), BOUNDARY_RATIO)))
        for code, box, inside in zip(codes, boxes.astype(int).tolist(), within(codes, boxes), strict=True)
    ]
    return [bands[n] for n in again.tolist()]


class _Band:
    """The boundary of a mask inside its box: outside there is no mask, and `boundary` takes the outside for that."""

    def __init__(self, x: int, y: int, inside: np.ndarray):
        self.x, self.y, self.inside = x, y, inside
        self.area = np.count_nonzero(inside)

    def iou(self, other: _Band) -> float:
        left, top = max(self.x, other.x), max(self.y, other.y)
        mine, others = (band.inside[left - band.x :, top - band.y :] for band in (self, other))
        width, height = (min(sides) for sides in zip(mine.shape, others.shape, strict=True))
        shared = np.count_nonzero(mine[:width, :height] & others[:width, :height])
        return shared / (self.area + other.area - shared)


def _neighbours(detections: Shapes, objects: Shapes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of all pairs of one cell, by detection and object, in blocks."""
    first, stop = (np.searchsorted(objects.cell, detections.cell, side) for side in ("left", "right"))
    for block in _blocks(stop - first, PAIRS):
        d = np.repeat(block, (stop - first)[block])
        yield d, first[d] + places(d)


def _blocks(sizes: np.ndarray, limit: int) -> list[np.ndarray]:
    """Indices in order, cut where `limit` is reached; one block at least."""
    return np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(np.cumsum(sizes) // limit)) + 1)


def _shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Area that boxes (n, 4) share pairwise."""
    start, stop = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:] + one[:, :2], other[:, 2:] + other[:, :2])
    sides = np.maximum(stop - start, 0)
    return sides[:, 0] * sides[:, 1]


def _iou(shared: np.ndarray, own: np.ndarray, other: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU by areas, in the order of operations of cocoapi, common/maskApi.c (`bbIou`, `rleIou`): the bits are equal."""
    return np.divide(shared, np.where(crowd, own, own + other - shared), out=np.zeros_like(shared), where=shared > 0)


def _enough(d: np.ndarray, o: np.ndarray, iou: np.ndarray) -> Pairs:
    enough = iou >= IOUS[0]
    return Pairs(d[enough], o[enough], iou[enough])


def _joined(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))
