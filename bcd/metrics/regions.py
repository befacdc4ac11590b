"""Does a prediction keep an object in one piece? Connectivity and fragmentation of ground-truth regions."""

from typing import NamedTuple

import cv2
import numpy as np

from bcd.metrics.boundary import NONE, known
from bcd.metrics.components import Components, components, framed


class Regions(NamedTuple):
    """The regions of a label map and the pieces that a prediction leaves of them, by class; each array is (R,).

    Attributes:
        kind: uint8, class id.
        area: int64, in pixels.
        largest: int64, pixels of the largest piece, 0 if the region is missed.
        pieces: int64, how many there are.
    """

    kind: np.ndarray
    area: np.ndarray
    largest: np.ndarray
    pieces: np.ndarray


def region_pieces(pred: np.ndarray, label: np.ndarray, valid: np.ndarray) -> Regions:
    """The pieces that a prediction leaves of every ground-truth region.

    Regions are the 8-connected components of equal class; the pieces of region r are the 8-connected components of
    the pixels of r that are predicted as its class. Of these, `conn(r) = largest / area` and `frag(r) = pieces`
    (our definitions, see docs/reference/metrics.md).

    Args:
        pred, label: uint8 (H, W) class ids, below 255 where valid.
        valid: bool (H, W), false for pixels that belong to no region.
    """
    truth = known(label, valid)
    hits = known(truth, pred == truth)
    kinds = np.flatnonzero(cv2.calcHist([truth], [0], None, [NONE], [0, NONE]))
    # Runs take 140 ns each, the masks of a class 18 ns a pixel: only white noise of very few classes prefers these.
    runs = sum(np.count_nonzero(ids[:, 1:] != ids[:, :-1]) for ids in (truth, hits))
    return by_runs(truth, hits) if 8 * runs < kinds.size * truth.size else by_masks(truth, hits, kinds)


def by_runs(truth: np.ndarray, hits: np.ndarray) -> Regions:
    """All classes at once. `truth` and `hits` are uint8 (H, W) class ids, or `NONE`; hits are some of the truth."""
    stride = truth.shape[1] + 1
    flat = framed(truth)
    regions, parts = components(flat, stride), components(framed(hits), stride)
    count = regions.first.size
    # A piece is connected, hence lies in one region: its first pixel names it.
    home = regions.component[regions.run_at[parts.start[parts.first]]]
    largest = np.zeros(count, np.int64)
    np.maximum.at(largest, home, parts.area)
    kind = flat[regions.start[regions.first]]
    order = np.lexsort((_rank(regions, flat, stride), kind))
    found = kind, regions.area, largest, np.bincount(home, minlength=count)
    return Regions(*(values[order] for values in found))


def _rank(regions: Components, flat: np.ndarray, stride: int) -> np.ndarray:
    """Where each region begins, in blocks of 2 x 2 pixels from the corner of its class's bounding box; int64 (R,).

    OpenCV numbers the components of a mask in this order, and sums of `conn(r)` depend on it in the last bit.
    """
    runs = np.flatnonzero(flat[regions.start] != NONE)
    row, column = np.divmod(regions.start[runs], stride)
    kind = flat[regions.start[runs]]
    top, left = np.full((2, NONE), flat.size)
    np.minimum.at(top, kind, row)
    np.minimum.at(left, kind, column)
    rank = np.full(regions.first.size, flat.size)
    np.minimum.at(rank, regions.component[runs], (row - top[kind]) // 2 * stride + (column - left[kind]) // 2)
    return rank


def by_masks(truth: np.ndarray, hits: np.ndarray, kinds: np.ndarray) -> Regions:
    """The same for one class of `kinds` after the other, in its bounding box."""
    found = [Regions(*np.zeros((4, 0), np.int64))]
    for kind in kinds:
        mask = (truth == kind).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        box = np.s_[y : y + height, x : x + width]
        count, region_of, stats, _ = cv2.connectedComponentsWithStats(mask[box], connectivity=8)
        hit = (hits[box] == kind).view(np.uint8)
        parts, part_of, part_stats, _ = cv2.connectedComponentsWithStats(hit, connectivity=8)
        home = np.zeros(parts, np.int64)
        home[part_of] = region_of  # whichever of a piece's pixels is written last names its region
        largest = np.zeros(count, np.int64)
        np.maximum.at(largest, home[1:], part_stats[1:, cv2.CC_STAT_AREA])
        area, pieces = stats[:, cv2.CC_STAT_AREA].astype(np.int64), np.bincount(home[1:], minlength=count)
        found.append(Regions(np.full(count - 1, kind), area[1:], largest[1:], pieces[1:]))
    return Regions(*(np.concatenate(values) for values in zip(*found, strict=True)))


def region_counts(
    pred: np.ndarray, label: np.ndarray, valid: np.ndarray, *, classes: int, min_region: int
) -> dict[str, np.ndarray]:
    """Numerators and denominators of `conn` and `frag` for one image.

    An ignored pixel belongs to no region: a strip of them through an object makes it two regions, each judged
    alone. What is predicted on ignored pixels neither joins nor breaks pieces.

    Args:
        pred, label: uint8 (H, W) class ids.
        valid: bool (H, W), false where the label is ignored.
        classes: number of classes C.
        min_region: smallest area in pixels of a region that counts.

    Returns:
        `conn.num` (sum of conn(r), float64), `conn.den` (regions), `frag.num` (pieces), `frag.den` (regions
        with at least one piece), each (C,).
    """
    every = region_pieces(pred, label, valid)
    kind, area, largest, pieces = (values[every.area >= min_region] for values in every)
    begin = np.searchsorted(kind, np.arange(classes + 1))
    shares, before = largest / area, np.append(0, np.cumsum(pieces))
    return {
        "conn.num": np.array([shares[a:b].sum() for a, b in zip(begin[:-1], begin[1:], strict=True)]),
        "conn.den": np.diff(begin),
        "frag.num": np.diff(before[begin]),
        "frag.den": np.bincount(kind[pieces > 0], minlength=classes),
    }
