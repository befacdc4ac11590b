"""Which detections and objects overlap enough to match: by their boxes, their masks, or the masks' boundaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bcd.metrics.boundary import band_width, boundary
from bcd.metrics.matching import IOUS, Pairs

if TYPE_CHECKING:
    from bcd.data.objects.annotations import RunLengths

BOUNDARY_RATIO = 0.02
# Pairs looked at together: their arrays stay in the processor's cache.
BLOCK = 1 << 14


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
    cells = objects.cell[pairs.object[single]]
    for cell in np.split(single, np.flatnonzero(np.diff(cells)) + 1):
        own, other = (cache(lambda n, shapes=shapes: _Band(shapes, n)) for shapes in (detections, objects))
        for at in cell.tolist():
            bands = own(int(pairs.detection[at])), other(int(pairs.object[at]))
            iou[at] = min(iou[at], bands[0].iou(bands[1]))
    return _enough(pairs.detection, pairs.object, iou)


class _Band:
    """The boundary of a mask inside its box."""

    def __init__(self, shapes: Shapes, number: int):
        from bcd.data.objects.masks import within

        code, box = shapes.codes[number], shapes.box[number]
        self.x, self.y = int(box[0]), int(box[1])
        # Outside its box there is no mask, and `boundary` takes the outside of the array for that.
        self.inside = boundary(within(code, box), band_width((code["size"][0], code["size"][1]), BOUNDARY_RATIO))
        self.area = np.count_nonzero(self.inside)

    def iou(self, other: _Band) -> float:
        left, top = max(self.x, other.x), max(self.y, other.y)
        mine, others = (band.inside[left - band.x :, top - band.y :] for band in (self, other))
        width, height = (min(sides) for sides in zip(mine.shape, others.shape, strict=True))
        shared = np.count_nonzero(mine[:width, :height] & others[:width, :height])
        return shared / (self.area + other.area - shared)


def _neighbours(detections: Shapes, objects: Shapes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of all pairs of one cell, by detection and object, in blocks."""
    first, stop = (np.searchsorted(objects.cell, detections.cell, side) for side in ("left", "right"))
    number = stop - first
    ends = np.cumsum(number)
    for block in np.split(np.arange(len(number)), np.flatnonzero(np.diff(ends // BLOCK)) + 1):
        d = np.repeat(block, number[block])
        yield d, np.arange(len(d)) + np.repeat(first[block] - (ends[block] - number[block]), number[block])


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
