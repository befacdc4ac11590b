"""Resizing and flipping images together with their objects, as detectron2 does by default.

The rules are those of RandomFlip (detectron2/data/transforms/augmentation_impl.py) and
transform_instance_annotations (detectron2/data/detection_utils.py). Coordinates are continuous: an image of width w
spans 0 to w, and a flip takes x to w - x.
"""

import numpy as np
from PIL import Image

from bcd.data.objects.annotations import Segmentation
from bcd.data.objects.masks import mask
from bcd.data.objects.split import Objects
from bcd.data.semantic.transforms import Size

EMPTY = 1e-5  # a box with a side no longer than this is empty (filter_empty_instances in the same file)


def moved_objects(
    objects: Objects, old: Size, new: Size, flipped: bool, masks: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Where the objects are once their image of size `old` was resized to `new` and maybe flipped.

    Returns boxes float32 (k, 4), clipped to the image, classes int64 (k,), and with `masks` also masks uint8 (k, h, w)
    of 0 and 1. Crowds are left out, and objects of which no box or no mask is left.
    """
    boxes = moved_points(objects.boxes.astype(np.float64).reshape(-1, 2), old, new, flipped).reshape(-1, 4)
    if flipped:
        boxes = boxes[:, [2, 1, 0, 3]]
    height, width = new
    boxes = boxes.clip(0, (width, height, width, height)).astype(np.float32)
    keep = ~objects.crowd & (boxes[:, 2:] - boxes[:, :2] > EMPTY).all(1)
    if not masks or objects.segmentation is None:
        return boxes[keep], objects.classes[keep], None
    stack = np.zeros((keep.sum(), height, width), np.uint8)
    for row, number in enumerate(np.flatnonzero(keep)):
        stack[row] = moved_mask(objects.segmentation[number], old, new, flipped)
    seen = stack.any((1, 2))
    return boxes[keep][seen], objects.classes[keep][seen], stack[seen]


def moved_points(points: np.ndarray, old: Size, new: Size, flipped: bool) -> np.ndarray:
    """Points x, y, float64 (n, 2), of an image of size `old` after it was resized to `new` and maybe flipped."""
    x, y = points[:, 0] * (new[1] / old[1]), points[:, 1] * (new[0] / old[0])
    return np.stack([new[1] - x if flipped else x, y], axis=1)


def moved_mask(segmentation: Segmentation, old: Size, new: Size, flipped: bool) -> np.ndarray:
    """An object's mask, uint8 of size `new`: polygons are moved, then drawn; run-length codes drawn, then moved."""
    if isinstance(segmentation, list):
        polygons = (np.array(polygon, np.float64).reshape(-1, 2) for polygon in segmentation)
        return mask([moved_points(points, old, new, flipped).ravel() for points in polygons], *new)
    drawn = resized(mask(segmentation, *old), new, Image.Resampling.NEAREST)
    return drawn[:, ::-1] if flipped else drawn


def resized(image: np.ndarray, size: Size, way: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """An image, uint8 (H, W, 3) or (H, W), at another size; Pillow's bilinear filter averages when it shrinks."""
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), way))
