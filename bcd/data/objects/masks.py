"""The pixels of COCO's segmentations."""

from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as coco_mask


def mask(
    segmentation: Sequence[Sequence[float] | np.ndarray] | Mapping[str, object], height: int, width: int
) -> np.ndarray:
    """The pixels of a segmentation: uint8 (height, width) of 0 and 1, the union of its polygons.

    The rasterisation is pycocotools', which defines what COCO calls a polygon's mask (cocoapi, common/maskApi.c).
    Codes must cover their size, as `annotations.parse` makes sure: pycocotools draws others without a word.
    """
    if not isinstance(segmentation, dict):
        code = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        code = coco_mask.frPyObjects(segmentation, height, width)
    else:
        code = segmentation
    return coco_mask.decode(code)
