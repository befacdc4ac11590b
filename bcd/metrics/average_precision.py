"""Average precision from the per-image rows of `detection_rows`, also for many bootstrap replicates of the images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from bcd.errors import UserError

# IoU thresholds 0.50, 0.55, ..., 0.95 and areas (all, small, medium, large) of the COCO protocol.
THRESHOLDS = 10
AREAS = 4
RECALLS = np.linspace(0, 1, 101)
EPSILON = np.spacing(1)
SUFFIX = {"box": "", "mask": "_mask", "boundary": "_boundary"}

# Index of the area and of the IoU thresholds that each metric averages over.
_EVERY = tuple(range(THRESHOLDS))
_PARTS = {
    "ap": (0, _EVERY),
    "ap50": (0, (0,)),
    "ap75": (0, (5,)),
    "ap_s": (1, _EVERY),
    "ap_m": (2, _EVERY),
    "ap_l": (3, _EVERY),
}
# Replicates at a time: the arrays of one category stay in the processor's cache.
_CHUNK = 256

Rows = Mapping[str, np.ndarray]


def bit(area: int, threshold: int) -> int:
    """Place of an area and an IoU threshold in the masks `matched` and `ignored`."""
    return area * THRESHOLDS + threshold


@overload
def summarise_detection(rows: Rows, weights: None = None, metrics: Sequence[str] | None = None) -> dict[str, float]: ...


@overload
def summarise_detection(
    rows: Rows, weights: np.ndarray, metrics: Sequence[str] | None = None
) -> dict[str, np.ndarray]: ...


def summarise_detection(
    rows: Rows, weights: np.ndarray | None = None, metrics: Sequence[str] | None = None
) -> dict[str, float] | dict[str, np.ndarray]:
    """COCO average precision of a set of images (Lin et al. 2014; cocodataset/cocoapi `cocoeval.py`).

    Precision at recall r is the best precision at any recall >= r. AP is its mean over 101 values of r, the IoU
    thresholds and the categories that have objects. It is nan where no category has any.

    Args:
        rows: see `bcd.metrics.detection.detection_rows`.
        weights: (B, I), how often each image counts in each of B replicates, whole numbers; once each if absent.
            The copies of a detection follow one another in the ranking.
        metrics: the ones to compute; all that the rows allow if absent.

    Returns:
        `{metric: value}` in percent; values are floats, or float64 (B,) with weights. Metrics are `ap ap50 ap75
        ap_s ap_m ap_l` for boxes and the same with the suffix `_mask` or `_boundary`.

    Raises:
        UserError: a metric that the rows do not allow.
    """
    known = {
        part + suffix: (kind, *where)
        for kind, suffix in SUFFIX.items()
        if f"{kind}.score" in rows
        for part, where in _PARTS.items()
    }
    wanted = list(known) if metrics is None else list(metrics)
    if unknown := [metric for metric in wanted if metric not in known]:
        raise UserError(f"metric {unknown[0]!r} was not evaluated; choose from {', '.join(known)}")

    images = len(rows["order"])
    counts = np.ones((images, 1)) if weights is None else np.asarray(weights, np.float64).T
    chunks = [np.ascontiguousarray(counts[:, at : at + _CHUNK]) for at in range(0, counts.shape[1], _CHUNK)]

    values: dict[str, np.ndarray] = {}
    for kind in dict.fromkeys(known[metric][0] for metric in wanted):
        ranking = rank(rows, kind)
        mine = [metric for metric in wanted if known[metric][0] == kind]
        for area in dict.fromkeys(known[metric][1] for metric in mine):
            parts = {metric: known[metric][2] for metric in mine if known[metric][1] == area}
            needed = sorted({threshold for thresholds in parts.values() for threshold in thresholds})
            ap = np.concatenate([_mean_over_categories(ranking, area, needed, chunk) for chunk in chunks], axis=1)
            for metric, thresholds in parts.items():
                values[metric] = 100.0 * ap[[needed.index(t) for t in thresholds]].mean(0)
    if weights is None:
        return {metric: float(values[metric][0]) for metric in wanted}
    return {metric: values[metric] for metric in wanted}


@dataclass(frozen=True)
class Ranking:
    """The detections of one category over all images, best score first.

    image             int64 (n,), row of the detection's image
    matched, ignored  int64 (n,), bit masks, see `bit`
    positives         int64 (I, AREAS), objects to be found in each image
    """

    image: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    positives: np.ndarray


def rank(rows: Rows, kind: str) -> list[Ranking]:
    """Each category's detections of one kind; equal scores keep COCO's order, by image and then within the image."""
    order = np.argsort(rows["order"], kind="stable")
    category, score, matched, ignored = (
        rows[f"{kind}.{name}"][order].ravel() for name in ("category", "score", "matched", "ignored")
    )
    image = np.repeat(order, rows[f"{kind}.score"].shape[1])
    best_first = np.argsort(-score, kind="stable")
    best_first = best_first[np.argsort(category[best_first], kind="stable")]

    positives = rows[f"{kind}.positives"]
    positives = positives.reshape(len(order), positives.shape[1] // AREAS, AREAS)
    edges = np.searchsorted(category[best_first], np.arange(positives.shape[1] + 1))
    rankings = []
    for k, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        which = best_first[start:stop]
        rankings.append(Ranking(image[which], matched[which], ignored[which], positives[:, k]))
    return rankings


def _mean_over_categories(
    rankings: Sequence[Ranking], area: int, thresholds: Sequence[int], counts: np.ndarray
) -> np.ndarray:
    """AP (0..1) at each threshold, float64 (T, B), for image counts (I, B); nan where no category has objects."""
    total = np.zeros((len(thresholds), counts.shape[1]))
    categories = np.zeros(counts.shape[1])
    for ranking in rankings:
        positives = ranking.positives[:, area] @ counts
        if not positives.any():
            continue
        found = positives > 0
        categories += found
        for row, threshold in zip(total, thresholds, strict=True):
            row += np.where(found, average_precision(ranking, bit(area, threshold), positives, counts), 0.0)
    return np.divide(total, categories, out=np.full_like(total, np.nan), where=categories > 0)


def average_precision(ranking: Ranking, place: int, positives: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """AP (0..1) of one category at one bit, float64 (B,), for image counts (I, B) and positives (B,)."""
    true, found = hits(ranking, place, counts)
    # The interpolated precision only changes at true positives, so they alone have to be looked at.
    precision = np.maximum.accumulate((true / (found + EPSILON))[:, ::-1], axis=1)[:, ::-1]
    points = recall_points(true / np.maximum(positives, 1)[:, None])
    points[:, 1:] -= points[:, :-1].copy()  # new ones at each hit
    return np.einsum("bj,bj->b", precision, points) / RECALLS.size


def hits(ranking: Ranking, place: int, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of true positives and of counted detections from the top of the ranking to each true positive.

    Returns:
        true and found, each float64 (B, J) for the J true positives. A replicate that lacks a hit's image repeats
        the hit before it with at least as many false positives, which changes no interpolated precision.
    """
    mark = 1 << place
    counted = ranking.ignored & mark == 0
    image = ranking.image[counted]
    at = (ranking.matched[counted] & mark).nonzero()[0]
    if counts.shape[1] == 1:  # each detection is looked at once
        each = counts[image, 0]
        return each[at].cumsum()[None], each.cumsum()[at][None]
    from scipy import sparse  # for a bootstrap only: its import takes a tenth of a short job's time

    ends = np.concatenate([[0], at + 1])
    # Row j of this matrix adds up the detections after hit j - 1 up to hit j.
    steps = sparse.csr_array((np.ones(ends[-1]), image[: ends[-1]], ends), shape=(at.size, len(counts)))
    return _running_sum(counts[image[at]]), _running_sum(steps @ counts)


def recall_points(recall: np.ndarray) -> np.ndarray:
    """How many of RECALLS are <= recall, int64; exact in float64, where 0.07 < RECALLS[7]."""
    below = (recall * (RECALLS.size - 1) + 1e-9).astype(np.int64)
    return below + (RECALLS[below] <= recall)


def _running_sum(values: np.ndarray) -> np.ndarray:
    """Running sums of (J, B) over J as (B, J); along contiguous memory, numpy adds up three times as fast."""
    return np.cumsum(np.ascontiguousarray(values.T), axis=1)
