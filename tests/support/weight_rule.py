"""Weights made from state-dict keys, and the samples by which the outputs of two segmentors are compared.

The rule of ../shared/model_parity/README.md: every tensor follows from its mmsegmentation key and shape, so that no
checkpoint is needed. numpy only, as `make_segmentor_reference.py` uses it where the package is not installed.
"""

import zlib
from collections.abc import Sequence

import numpy as np

SIZES = ("96x128", "97x131", "301x330")


def weight(key: str, shape: Sequence[int], gain: float = 1.0) -> np.ndarray:
    """The float64 tensor of an mmsegmentation key; `gain` scales the weights of convolutions and matrices."""
    n = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(tuple(shape))
    last = key.rsplit(".", 1)[-1]
    if last == "running_var":
        return 1 + 0.1 * np.abs(n)
    if last == "relative_position_bias_table":
        return 0.02 * n
    if last == "running_mean" or last.endswith("bias"):
        return 0.1 * n
    if len(shape) == 1:
        return 1 + 0.1 * n
    return n * np.sqrt(gain / np.prod(shape[1:]))


def image(size: str) -> np.ndarray:
    """The float64 input `(1, 3, H, W)` of a size such as `97x131`."""
    height, width = map(int, size.split("x"))
    return np.random.Generator(np.random.PCG64(0)).standard_normal((1, 3, height, width))


def sample(array: np.ndarray, count: int) -> np.ndarray:
    """`count` elements evenly spread over the flattened array, or all if it has no more."""
    flat = array.reshape(-1)
    if flat.size <= count:
        return flat
    j = np.arange(count)
    return flat[((2 * j + 1) * flat.size) // (2 * count)]
