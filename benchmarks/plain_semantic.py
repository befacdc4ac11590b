"""The counts of `image_counts` written down plainly: one class and one metric after the other."""

import cv2
import numpy as np

from bcd.metrics import MetricOptions, boundary_f
from bcd.metrics.boundary import band_width, class_band

Counts = dict[str, np.ndarray]


def overlaps(pred: np.ndarray, label: np.ndarray, classes: int, options: MetricOptions) -> Counts:
    """miou, macc, biou and trimap<w>."""
    valid = label != 255
    counts = _overlap("miou", pred, label, valid, valid, classes)
    counts |= {"macc.num": counts["miou.num"], "macc.den": np.bincount(label[valid], minlength=classes)}
    d = band_width(label.shape, options.boundary_ratio)
    bands = (class_band(ids, valid, d, frame=True) & valid for ids in (pred, label))
    counts |= _overlap("biou", pred, label, *bands, classes)
    for width in options.trimap:
        band = class_band(label, valid, width, frame=False) & valid
        counts |= _overlap(f"trimap{width}", pred, label, band, band, classes)
    return counts


def _overlap(
    metric: str, pred: np.ndarray, label: np.ndarray, pred_in: np.ndarray, label_in: np.ndarray, classes: int
) -> Counts:
    hits = np.bincount(label[pred_in & label_in & (pred == label)], minlength=classes)
    area = np.bincount(pred[pred_in], minlength=classes) + np.bincount(label[label_in], minlength=classes)
    return {f"{metric}.num": hits, f"{metric}.den": area - hits}


def contours(pred: np.ndarray, label: np.ndarray, classes: int, options: MetricOptions) -> Counts:
    """bf<w>."""
    counts: Counts = {}
    for radius in options.bf:
        score, present = np.zeros(classes), np.zeros(classes, np.int64)
        for c in range(classes):
            gt, guess = (((ids == c) & (label != 255)).astype(np.uint8) for ids in (label, pred))
            x, y, width, height = cv2.boundingRect(gt | guess)
            present[c] = width > 0
            if present[c]:
                # One pixel more on each side holds all contours and keeps the special cases at the image's edges.
                box = np.s_[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1]
                score[c] = boundary_f(gt[box], guess[box], radius)
        counts |= {f"bf{radius}.num": score, f"bf{radius}.den": present}
    return counts


def regions(pred: np.ndarray, label: np.ndarray, classes: int, options: MetricOptions) -> Counts:
    """conn and frag."""
    conn, (count, pieces, hit) = np.zeros(classes), np.zeros((3, classes), np.int64)
    for c in np.flatnonzero(np.bincount(label[label != 255], minlength=classes)):
        gt = ((label == c) & (label != 255)).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(gt)
        box = np.s_[y : y + height, x : x + width]
        area, largest, parts = _pieces(gt[box], (pred[box] == c).astype(np.uint8))
        counted = area >= options.min_region
        conn[c] = (largest[counted] / area[counted]).sum()
        count[c], hit[c] = np.count_nonzero(counted), np.count_nonzero(parts[counted])
        pieces[c] = parts[counted].sum()
    return {"conn.num": conn, "conn.den": count, "frag.num": pieces, "frag.den": hit}


def _pieces(gt: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Area, largest piece and number of pieces of each region of the mask `gt`."""
    count, region_of, stats, _ = cv2.connectedComponentsWithStats(gt, connectivity=8)
    parts, part_of, part_stats, _ = cv2.connectedComponentsWithStats(gt & pred, connectivity=8)
    home = np.zeros(parts, np.int64)
    home[part_of] = region_of  # whichever pixel of a piece is written last names its region
    largest = np.zeros(count, np.int64)
    np.maximum.at(largest, home[1:], part_stats[1:, cv2.CC_STAT_AREA])
    area = stats[1:, cv2.CC_STAT_AREA].astype(np.int64)
    return area, largest[1:], np.bincount(home[1:], minlength=count)[1:]


def image_counts(pred: np.ndarray, label: np.ndarray, classes: int, options: MetricOptions) -> Counts:
    """All of them, with 255 as the ignored id."""
    return {
        name: values
        for part in (overlaps, contours, regions)
        for name, values in part(pred, label, classes, options).items()
    }
