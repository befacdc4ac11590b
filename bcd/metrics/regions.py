"""Does a prediction keep an object in one piece? Connectivity and fragmentation of ground-truth regions."""

import cv2
import numpy as np


def region_pieces(gt: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pieces that a prediction leaves of every ground-truth region of one class.

    Regions are the 8-connected components of `gt`; the pieces of region r are the 8-connected components of
    `pred` restricted to r. Of these, `conn(r) = largest / area` and `frag(r) = pieces` (our definitions, see
    docs/reference/metrics.md).

    Args:
        gt, pred: uint8 (H, W) of 0 and 1.

    Returns:
        area (pixels), largest (pixels of the largest piece, 0 if the region is missed) and pieces (count),
        each int64 (R,), one entry for each of the R regions.
    """
    regions, region_of, region_stats, _ = cv2.connectedComponentsWithStats(gt, connectivity=8)
    parts, part_of, part_stats, _ = cv2.connectedComponentsWithStats(gt & pred, connectivity=8)
    home = np.zeros(parts, np.int64)
    # A piece is connected, hence lies in one region: whichever of its pixels is written last names that region.
    home[part_of] = region_of
    home = home[1:]
    largest = np.zeros(regions, np.int64)
    np.maximum.at(largest, home, part_stats[1:, cv2.CC_STAT_AREA])
    pieces = np.bincount(home, minlength=regions)
    return region_stats[1:, cv2.CC_STAT_AREA].astype(np.int64), largest[1:], pieces[1:]


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
    conn = np.zeros(classes)
    regions, pieces, hit = (np.zeros(classes, np.int64) for _ in range(3))
    for c in np.flatnonzero(np.bincount(label[valid], minlength=classes)):
        gt = ((label == c) & valid).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(gt)
        box = np.s_[y : y + height, x : x + width]
        area, largest, parts = region_pieces(gt[box], (pred[box] == c).astype(np.uint8))
        counted = area >= min_region
        conn[c] = (largest[counted] / area[counted]).sum()
        regions[c] = np.count_nonzero(counted)
        pieces[c] = parts[counted].sum()
        hit[c] = np.count_nonzero(parts[counted])
    return {"conn.num": conn, "conn.den": regions, "frag.num": pieces, "frag.den": hit}
