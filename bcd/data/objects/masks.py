"""The pixels of COCO's segmentations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


def mask(
    segmentation: Sequence[Sequence[float] | np.ndarray] | Mapping[str, object], height: int, width: int
) -> np.ndarray:
    """The pixels of a segmentation: uint8 (height, width) of 0 and 1, the union of its polygons.

    The rasterisation is pycocotools', which defines what COCO calls a polygon's mask (cocoapi, common/maskApi.c).
    Codes must cover their size, as `annotations.parse` makes sure: pycocotools draws others without a word.
    """
    return coco_mask.decode(_code(segmentation, height, width))


def area(segmentation: Sequence[Sequence[float] | np.ndarray] | Mapping[str, object], height: int, width: int) -> float:
    """How many pixels `mask` has, without drawing them."""
    return float(coco_mask.area(_code(segmentation, height, width)))


def _code(segmentation: object, height: int, width: int) -> Any:
    """A compressed run-length code of the segmentation."""
    if not isinstance(segmentation, dict):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation
