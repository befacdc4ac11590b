"""Class boundaries of a label map: bands (Boundary IoU, trimaps) and contours (boundary F)."""

import math

import cv2
import numpy as np


def band_width(shape: tuple[int, int], dilation_ratio: float) -> int:
    """Width in pixels of the Boundary IoU band: `max(1, round(dilation_ratio * image diagonal))`.

    Halves round to even, as in the official code of Cheng et al. (2021).
    """
    height, width = shape
    return max(1, round(dilation_ratio * math.sqrt(height**2 + width**2)))


NONE = 255  # the id of pixels that belong to no class


def known(ids: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`np.where(valid, ids, NONE)` for uint8 ids and bool valid, twenty times as fast."""
    return ids | (valid.view(np.uint8) - np.uint8(1))


def class_band(ids: np.ndarray, valid: np.ndarray, d: int, *, frame: bool) -> np.ndarray:
    """Pixels at Chebyshev distance <= d from a valid pixel of another class.

    Args:
        ids: uint8 (H, W) class ids, 0..254.
        valid: bool (H, W); the others belong to no class, so they make no boundary. They may be in the band.
        d: band width in pixels, >= 1.
        frame: whether the outside of the image counts as another class.

    Returns:
        bool (H, W), meaningful at valid pixels.
    """
    window = np.ones((2 * d + 1, 2 * d + 1), np.uint8)
    # A window holds two classes exactly when its largest and smallest ids differ: two filters serve all classes.
    # NONE is neutral for the minimum, and for the maximum of ids + 1, where it wraps to 0. So is OpenCV's border.
    ids = known(ids, valid)
    band = cv2.dilate(ids + np.uint8(1), window) != cv2.erode(ids, window) + np.uint8(1)
    if frame:
        band[:d] = band[-d:] = True
        band[:, :d] = band[:, -d:] = True
    return band


def boundary(mask: np.ndarray, d: int) -> np.ndarray:
    """Inner boundary band of one mask: its pixels within Chebyshev distance d of a pixel outside it.

    The outside of the image counts as outside the mask. Equals the mask minus its erosion by a 3x3 square,
    d times, as in the official bowenc0221/boundary-iou-api (Cheng et al. 2021, arXiv 2103.16562).

    Args:
        mask: bool or uint8 (H, W), non-zero inside.
        d: band width in pixels, >= 1.

    Returns:
        bool (H, W).
    """
    inside = (np.asarray(mask) != 0).astype(np.uint8)
    window = np.ones((2 * d + 1, 2 * d + 1), np.uint8)
    return inside > cv2.erode(inside, window, borderType=cv2.BORDER_CONSTANT, borderValue=0)


def boundary_iou(gt: np.ndarray, pred: np.ndarray, dilation_ratio: float = 0.02) -> float:
    """Boundary IoU of two masks: |G_b & P_b| / |G_b or P_b| of their `boundary` bands (arXiv 2103.16562).

    Args:
        gt, pred: bool or uint8 (H, W), non-zero inside.
        dilation_ratio: band width as a fraction of the image diagonal.

    Returns:
        A value in 0..1; nan when both masks are empty.
    """
    d = band_width(gt.shape, dilation_ratio)
    gt_band, pred_band = boundary(gt, d), boundary(pred, d)
    union = np.count_nonzero(gt_band | pred_band)
    return np.count_nonzero(gt_band & pred_band) / union if union else math.nan


def contour(mask: np.ndarray) -> np.ndarray:
    """One-pixel contour of a mask: pixels that differ from their right, lower or lower-right neighbour.

    Missing neighbours are skipped, so the frame of the image is no contour (Perazzi et al. 2016, the DAVIS
    `seg2bmap` at full resolution).

    Args:
        mask: bool or uint8 (H, W), non-zero inside.

    Returns:
        uint8 (H, W) of 0 and 1.
    """
    inside = (np.asarray(mask) != 0).astype(np.uint8)
    edge = np.zeros_like(inside)
    edge[:, :-1] |= inside[:, :-1] ^ inside[:, 1:]
    edge[:-1] |= inside[:-1] ^ inside[1:]
    edge[:-1, :-1] |= inside[:-1, :-1] ^ inside[1:, 1:]
    return edge


def precision_recall(gt_contour: np.ndarray, pred_contour: np.ndarray, radius: int) -> tuple[float, float]:
    """Fractions of predicted and of true contour pixels that have a partner within `radius` pixels (Euclidean).

    With one contour empty, the fraction over the empty one is 1 and the other 0; with both empty, both are 1
    (DAVIS and GSCNN `f_boundary.py`).

    Args:
        gt_contour, pred_contour: uint8 (H, W) of 0 and 1, see `contour`.
        radius: tolerance in pixels, >= 1.

    Returns:
        precision and recall, each in 0..1.
    """
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    matched = cv2.countNonZero(pred_contour & cv2.dilate(gt_contour, disk))
    recalled = cv2.countNonZero(gt_contour & cv2.dilate(pred_contour, disk))
    return fractions((matched, cv2.countNonZero(pred_contour)), (recalled, cv2.countNonZero(gt_contour)))


def fractions(predicted: tuple[int, int], true: tuple[int, int]) -> tuple[float, float]:
    """Precision and recall from (with a partner, all) of the predicted and of the true contour pixels."""
    if not (predicted[1] and true[1]):
        return float(not predicted[1]), float(not true[1])
    return predicted[0] / predicted[1], true[0] / true[1]


def f_score(precision: float, recall: float) -> float:
    """Harmonic mean of precision and recall; 0 when both are 0."""
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def boundary_f(gt: np.ndarray, pred: np.ndarray, radius: int) -> float:
    """Boundary F of two masks, 2PR / (P + R), as in DAVIS (Perazzi et al. 2016) and GSCNN (Takikawa et al. 2019).

    Args:
        gt, pred: bool or uint8 (H, W), non-zero inside.
        radius: tolerance in pixels, >= 1. The official codes also take a fraction t of the image diagonal,
            which is `ceil(t * sqrt(H**2 + W**2))` pixels.

    Returns:
        A value in 0..1; 1 when neither mask has a contour.
    """
    return f_score(*precision_recall(contour(gt), contour(pred), radius))
