"""The pixels of COCO's segmentations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from bcd.data.objects.annotations import RunLengths, run_lengths

# pycocotools 2.0.11 takes no more at a time with numpy 2.
AREAS_AT_A_TIME = 255


def mask(
    segmentation: Sequence[Sequence[float] | np.ndarray] | Mapping[str, Any], height: int, width: int
) -> np.ndarray:
    """The pixels of a segmentation: uint8 (height, width) of 0 and 1, the union of its polygons."""
    return coco_mask.decode(run_length_code(segmentation, height, width))


def run_length_code(
    segmentation: Sequence[Sequence[float] | np.ndarray] | Mapping[str, Any], height: int, width: int
) -> RunLengths:
    """A segmentation as compressed run lengths.

    The rasterisation is pycocotools', which defines what COCO calls a polygon's mask (cocoapi, common/maskApi.c).
    Codes must cover their size, as `annotations.parse` makes sure: pycocotools draws others without a word.
    """
    if not isinstance(segmentation, dict):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def areas(codes: Sequence[RunLengths]) -> np.ndarray:
    """Pixels of compressed masks, float64 (n,)."""
    parts = [codes[at : at + AREAS_AT_A_TIME] for at in range(0, len(codes), AREAS_AT_A_TIME)]
    return np.concatenate([np.zeros(0), *map(coco_mask.area, parts)])


def boxes(codes: Sequence[RunLengths]) -> np.ndarray:
    """The boxes around compressed masks, float64 (n, 4) of x, y, width, height; zeros for an empty mask."""
    return coco_mask.toBbox(codes).reshape(-1, 4) if len(codes) else np.zeros((0, 4))


def within(code: RunLengths, box: np.ndarray) -> np.ndarray:
    """The pixels of a compressed mask inside its box, see `boxes`: uint8 (width, height), so column by column.

    A small object in a large image costs its own pixels only.
    """
    x, y, width, height = (int(side) for side in box)
    text = code["counts"]
    edges = np.cumsum(run_lengths(text.decode() if isinstance(text, bytes) else text))
    # First and last pixels of the runs of ones; a run may be empty.
    runs = edges[: len(edges) // 2 * 2].reshape(-1, 2) - [0, 1]
    column, row = np.divmod(runs[runs[:, 0] <= runs[:, 1]], code["size"][0])
    # A run that goes on in the next column makes the box as high as the image, so it is one run in the box, too.
    inside = (column - x) * height + (row - y) + [0, 1]
    lengths = np.diff(inside.ravel(), prepend=0, append=width * height)
    return np.repeat(np.arange(lengths.size, dtype=np.uint8) & 1, lengths).reshape(width, height)
