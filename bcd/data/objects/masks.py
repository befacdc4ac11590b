"""The pixels of COCO's segmentations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

# pycocotools 2.0.11 takes no more at a time with numpy 2.
AREAS_AT_A_TIME = 255


def mask(
    segmentation: Sequence[Sequence[float] | np.ndarray] | Mapping[str, Any], height: int, width: int
) -> np.ndarray:
    """The pixels of a segmentation: uint8 (height, width) of 0 and 1, the union of its polygons."""
    return coco_mask.decode(run_length_code(segmentation, height, width))


def run_length_code(
    segmentation: Sequence[Sequence[float] | np.ndarray] | Mapping[str, Any], height: int, width: int
) -> Any:
    """A segmentation as compressed run lengths, `annotations.RunLengths`.

    The rasterisation is pycocotools', which defines what COCO calls a polygon's mask (cocoapi, common/maskApi.c).
    Codes must cover their size, as `annotations.parse` makes sure: pycocotools draws others without a word.
    """
    if not isinstance(segmentation, dict):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def area(segmentation: Sequence[Sequence[float] | np.ndarray] | Mapping[str, Any], height: int, width: int) -> float:
    """How many pixels `mask` has, without drawing them."""
    return float(coco_mask.area(run_length_code(segmentation, height, width)))


def areas(codes: Sequence[Any]) -> np.ndarray:
    """Pixels of compressed masks, float64 (n,)."""
    parts = [codes[at : at + AREAS_AT_A_TIME] for at in range(0, len(codes), AREAS_AT_A_TIME)]
    return np.concatenate([np.zeros(0), *map(coco_mask.area, parts)])


def boxes(codes: Sequence[Any]) -> np.ndarray:
    """The boxes around compressed masks, float64 (n, 4) of x, y, width, height; zeros for an empty mask."""
    return coco_mask.toBbox(codes).reshape(-1, 4) if len(codes) else np.zeros((0, 4))


def within(codes: Sequence[Any], around: np.ndarray) -> list[np.ndarray]:
    """The pixels of compressed masks inside their boxes, see `boxes`: uint8 (width, height) each, so column by column.

    A small object in a large image costs its own pixels only.
    """
    if not codes:
        return []
    runs, number = _runs(codes)
    of = np.repeat(np.arange(len(codes)), number // 2)
    stop = _running_sum(runs, number)
    place = _places(number)
    ones = place % 2 == 1
    # First and last pixels of the runs of ones; a run may be empty.
    pixels = np.stack([stop[ones] - runs[ones], stop[ones] - 1], 1)
    pixels, of = pixels[runs[ones] > 0], of[runs[ones] > 0]
    x, y, width, height = around.astype(np.int64).T
    column, row = np.divmod(pixels, np.array([code["size"][0] for code in codes], np.int64)[of, None])
    # A run that goes on in the next column makes the box as high as the image, so it is one run in the box, too.
    inside = (column - x[of, None]) * height[of, None] + (row - y[of, None]) + [0, 1]
    ends = np.cumsum(width * height)
    edges = (inside + (ends - width * height)[of, None]).ravel()
    lengths = np.diff(edges, prepend=0, append=ends[-1])
    flat = np.repeat(np.arange(lengths.size, dtype=np.uint8) & 1, lengths)
    parts = np.split(flat, ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, zip(width, height, strict=True), strict=True)]


def _runs(codes: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The runs of compressed codes one after the other, int64, and how many each has; `annotations.run_lengths` says
    what the characters mean."""
    counts = [code["counts"] for code in codes]
    texts = [text.encode() if isinstance(text, str) else bytes(text) for text in counts]
    bits = np.frombuffer(b"".join(texts), np.uint8) - 48
    last = np.flatnonzero(bits < 32)
    length = np.diff(last, prepend=-1)
    shift = 5 * _places(length)
    runs = np.add.reduceat((bits & 31).astype(np.int64) << shift, last - length + 1)
    runs -= (bits[last] >= 16).astype(np.int64) << 5 * length
    number = np.diff(np.searchsorted(last, np.cumsum([len(text) for text in texts])), prepend=0)
    # From the fourth on, a run is the difference to the one before the last.
    place = _places(number)
    for odd in (1, 0):
        which = (place % 2 == odd) & (place > 0)
        runs[which] = _running_sum(runs[which], (number - 1 + odd) // 2)
    return runs, number


def _places(number: np.ndarray) -> np.ndarray:
    """0 to n - 1 for each n of `number`, one after the other."""
    return np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)


def _running_sum(values: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Running sums of the first `number[0]` values, of the next `number[1]`, and so on."""
    total = np.cumsum(values)
    before = np.concatenate([[0], total])[np.cumsum(number) - number]
    return total - np.repeat(before, number)
