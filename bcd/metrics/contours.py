"""Boundary F of all classes of an image at once: the contours of eight classes are the bits of one map."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from bcd.metrics.boundary import f_score, fractions

BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)


def contour_counts(
    pred: np.ndarray, label: np.ndarray, present: np.ndarray, radii: Sequence[int]
) -> dict[str, np.ndarray]:
    """Numerators and denominators of `bf<radius>` for one image, as `boundary_f` of the masks of each class.

    Args:
        pred, label: uint8 (H, W) class ids; what is no class of `present`, as an ignored pixel, is outside all masks.
        present: bool (C,), the classes that either map holds.
        radii: tolerances in pixels, each >= 1.

    Returns:
        `bf<radius>.num` (F, float64) and `bf<radius>.den` (0 or 1, int64), each (C,).
    """
    score = {radius: np.zeros(present.size) for radius in radii}
    held = np.flatnonzero(present)
    for group in (held[i : i + 8] for i in range(0, held.size, 8)):
        bit = np.zeros(256, np.uint8)
        bit[group] = 1 << np.arange(group.size)
        true, guess = (_contours(cv2.LUT(ids, bit)) for ids in (label, pred))
        for radius in radii:
            pairs = zip(_partnered(guess, true, radius), _partnered(true, guess, radius), strict=True)
            score[radius][group] = [f_score(*fractions(*pair)) for pair in pairs][: group.size]
    counts: dict[str, np.ndarray] = {}
    for radius in radii:
        counts |= {f"bf{radius}.num": score[radius], f"bf{radius}.den": present.astype(np.int64)}
    return counts


def _contours(member: np.ndarray) -> np.ndarray:
    """Bitwise `contour`: bits that are not the same in a pixel and its right, lower and lower-right neighbour."""
    some, every = member.copy(), member.copy()
    some[:, :-1] |= member[:, 1:]
    every[:, :-1] &= member[:, 1:]
    some[:-1] |= some[1:]
    every[:-1] &= every[1:]
    return some ^ every


def _partnered(these: np.ndarray, others: np.ndarray, radius: int) -> list[tuple[int, int]]:
    """For each of the eight bits how many pixels of `these` are within `radius` of one of `others`, and all."""
    at = np.flatnonzero(these != 0)
    bits = these.ravel()[at]
    near = bits & _dilated(others, radius).ravel()[at]
    return list(zip(*((np.bincount(each, minlength=256) @ BITS).tolist() for each in (near, bits)), strict=True))


def _dilated(bits: np.ndarray, radius: int) -> np.ndarray:
    """Bits of all pixels within `radius` (Euclidean): the rows of the disk from its tip to its middle, ever wider."""
    near, wide, half = np.zeros_like(bits), bits.copy(), 0
    for dy in range(min(radius, len(bits) - 1), -1, -1):
        for dx in range(half + 1, math.isqrt(radius**2 - dy**2) + 1):
            wide[:, dx:] |= bits[:, :-dx]
            wide[:, :-dx] |= bits[:, dx:]
            half = dx
        near[dy:] |= wide[: len(wide) - dy]
        near[: len(near) - dy] |= wide[dy:]
    return near
