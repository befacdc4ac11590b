"""Counts of one image from which every semantic metric is a ratio of sums over images."""

from dataclasses import dataclass

import cv2
import numpy as np

from bcd.errors import UserError
from bcd.metrics.boundary import band_width, class_band, contour, f_score, precision_recall
from bcd.metrics.regions import region_counts


@dataclass(frozen=True)
class MetricOptions:
    """Widths and thresholds of the metrics, in pixels unless stated.

    Attributes:
        trimap: band widths w of the metrics `trimap<w>`, each >= 1.
        bf: tolerances w of the metrics `bf<w>`, each >= 1.
        boundary_ratio: Boundary IoU band width as a fraction of the image diagonal, > 0.
        min_region: smallest area of a ground-truth region that enters `conn` and `frag`, >= 1.

    Raises:
        UserError: a value is below its limit.
    """

    trimap: tuple[int, ...] = (1, 3, 5)
    bf: tuple[int, ...] = (3,)
    boundary_ratio: float = 0.02
    min_region: int = 10

    def __post_init__(self) -> None:
        for field in ("trimap", "bf"):
            if any(width < 1 for width in getattr(self, field)):
                raise UserError(f"metrics.{field} holds a width below 1; give whole pixels of at least 1")
        if self.min_region < 1:
            raise UserError("metrics.min_region is below 1; give an area of at least 1 pixel")
        if not self.boundary_ratio > 0:
            raise UserError("metrics.boundary_ratio must be above 0; the paper uses 0.02")


def image_counts(
    pred: np.ndarray,
    label: np.ndarray,
    *,
    classes: int,
    ignore: int = 255,
    options: MetricOptions | None = None,
) -> dict[str, np.ndarray]:
    """Numerator and denominator of each metric, per class, for one image.

    Args:
        pred: uint8 (H, W), class ids 0..classes-1; any value where the label is ignored.
        label: uint8 (H, W), class ids 0..classes-1 or `ignore`.
        classes: number of classes C, 1..255.
        ignore: label value of pixels that no metric counts.
        options: defaults to `MetricOptions()`.

    Returns:
        `<metric>.num` and `<metric>.den`, each (C,), int64 or (`bf<w>.num`, `conn.num`) float64, for miou, macc,
        biou, trimap<w>, bf<w>, conn, frag in this order. `macc` serves `aacc` too.

    Raises:
        UserError: the label holds a class id that the dataset does not have.
        ValueError: shapes or dtypes are wrong, or the prediction holds an impossible class id.
    """
    options = options or MetricOptions()
    valid = label != ignore
    _check(pred, label, valid, classes)
    counts = _overlap("miou", pred, label, valid, valid, classes)
    counts["macc.num"] = counts["miou.num"]
    counts["macc.den"] = np.bincount(label[valid], minlength=classes)

    d = band_width(label.shape, options.boundary_ratio)
    pred_band = class_band(pred, valid, d, frame=True) & valid
    label_band = class_band(label, valid, d, frame=True) & valid
    counts |= _overlap("biou", pred, label, pred_band, label_band, classes)
    for width in options.trimap:
        band = class_band(label, valid, width, frame=False) & valid
        counts |= _overlap(f"trimap{width}", pred, label, band, band, classes)

    counts |= _contour_f(pred, label, valid, counts["miou.den"] > 0, options.bf)
    counts |= region_counts(pred, label, valid, classes=classes, min_region=options.min_region)
    return counts


def _check(pred: np.ndarray, label: np.ndarray, valid: np.ndarray, classes: int) -> None:
    if pred.ndim != 2 or pred.shape != label.shape:
        raise ValueError(f"pred {pred.shape} and label {label.shape} must be maps (H, W) of one size")
    if pred.dtype != np.uint8 or label.dtype != np.uint8:
        raise ValueError(f"pred ({pred.dtype}) and label ({label.dtype}) must be uint8")
    if not 1 <= classes <= 255:
        raise ValueError(f"classes must be 1..255, not {classes}")
    if not valid.any():
        return
    if (worst := int(label[valid].max())) >= classes:
        raise UserError(
            f"a label holds class id {worst}, but the dataset names {classes} classes (ids 0..{classes - 1}); "
            f"correct its list of classes or map the id to the ignore value"
        )
    if (worst := int(pred[valid].max())) >= classes:
        raise ValueError(f"pred holds class id {worst}, the model has {classes} classes")


def _overlap(
    metric: str, pred: np.ndarray, label: np.ndarray, pred_in: np.ndarray, label_in: np.ndarray, classes: int
) -> dict[str, np.ndarray]:
    """Intersection and union per class of the predicted pixels in `pred_in` and the labelled in `label_in`."""
    inter = np.bincount(label[pred_in & label_in & (pred == label)], minlength=classes)
    area = np.bincount(pred[pred_in], minlength=classes) + np.bincount(label[label_in], minlength=classes)
    return {f"{metric}.num": inter, f"{metric}.den": area - inter}


def _contour_f(
    pred: np.ndarray, label: np.ndarray, valid: np.ndarray, present: np.ndarray, radii: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Boundary F of the classes `present`, bool (C,); ignored pixels are outside both masks, as in GSCNN."""
    score = {radius: np.zeros(present.size) for radius in radii}
    for c in np.flatnonzero(present):
        gt, guess = (((ids == c) & valid).astype(np.uint8) for ids in (label, pred))
        x, y, width, height = cv2.boundingRect(gt | guess)
        # One pixel more on each side holds all contours and keeps the special cases at the image's edges.
        box = np.s_[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1]
        contours = contour(gt[box]), contour(guess[box])
        for radius in radii:
            score[radius][c] = f_score(*precision_recall(*contours, radius))
    counts: dict[str, np.ndarray] = {}
    for radius in radii:
        counts |= {f"bf{radius}.num": score[radius], f"bf{radius}.den": present.astype(np.int64)}
    return counts
