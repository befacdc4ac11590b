"""Counts of one image from which every semantic metric is a ratio of sums over images."""

import math
from dataclasses import dataclass

import numpy as np

from bcd.errors import UserError
from bcd.metrics.boundary import band_width, class_band, known
from bcd.metrics.contours import contour_counts
from bcd.metrics.regions import region_counts

IDS = 256  # classes and NONE


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
    pred, label = (known(ids, valid) for ids in (pred, label))
    counts = overlap_counts(pred, label, valid, classes, options)
    counts |= contour_counts(pred, label, counts["miou.den"] > 0, options.bf)
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
    if (worst := int((label * valid).max())) >= classes:
        raise UserError(
            f"a label holds class id {worst}, but the dataset names {classes} classes (ids 0..{classes - 1}); "
            f"correct its list of classes or map the id to the ignore value"
        )
    if (worst := int((pred * valid).max())) >= classes:
        raise ValueError(f"pred holds class id {worst}, the model has {classes} classes")


def overlap_counts(
    pred: np.ndarray, label: np.ndarray, valid: np.ndarray, classes: int, options: MetricOptions
) -> dict[str, np.ndarray]:
    """Counts of miou, macc, biou and trimap<w> from one histogram of each map; ignored pixels have the id `NONE`.

    Each histogram says of every class in which bands its pixels lie, that of the label also which are hit.
    """
    d, widths = band_width(label.shape, options.boundary_ratio), sorted(set(options.trimap))
    pred_band = class_band(pred, valid, d, frame=True)
    label_band = class_band(label, valid, d, frame=True)
    # A wide trimap holds the narrow ones: it is enough to count in how many a pixel lies.
    where = np.zeros(label.shape, np.min_scalar_type(8 * (len(widths) + 1) * IDS))
    for width in widths:
        where += class_band(label, valid, width, frame=False)
    for flag in (pred_band, label_band):
        where = 2 * where + flag
    of_pred = _histogram(where, pred, (len(widths) + 1, 2, 2), classes)
    of_label = _histogram(2 * where + (pred == label), label, (len(widths) + 1, 2, 2, 2), classes)
    hits, of_label = of_label[:, :, :, 1], of_label.sum(3)

    def overlap(metric: str, inside: np.ndarray, predicted: np.ndarray, labelled: np.ndarray) -> dict[str, np.ndarray]:
        return {f"{metric}.num": inside, f"{metric}.den": predicted + labelled - inside}

    counts = overlap("miou", *(each.sum((0, 1, 2)) for each in (hits, of_pred, of_label)))
    counts |= {"macc.num": counts["miou.num"], "macc.den": of_label.sum((0, 1, 2))}
    counts |= overlap("biou", hits[:, 1, 1].sum(0), of_pred[:, 1].sum((0, 1)), of_label[:, :, 1].sum((0, 1)))
    for width in options.trimap:
        least = len(widths) - widths.index(width)
        counts |= overlap(f"trimap{width}", *(each[least:].sum((0, 1, 2)) for each in (hits, of_pred, of_label)))
    return counts


def _histogram(where: np.ndarray, ids: np.ndarray, shape: tuple[int, ...], classes: int) -> np.ndarray:
    """Pixels of every class at every value of `where`, int64 (*shape, classes)."""
    counts = np.zeros(math.prod(shape) * IDS, np.int64)
    # By and by: numpy copies what it counts to int64, which would otherwise leave the cache.
    for rows in (slice(top, top + 64) for top in range(0, len(ids), 64)):
        cells = where[rows] * where.dtype.type(IDS) + ids[rows]
        counts += np.bincount(cells.ravel(), minlength=counts.size)
    return counts.reshape(*shape, IDS)[..., :classes]
