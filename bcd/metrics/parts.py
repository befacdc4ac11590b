"""Parts of per-image rows: the rows of one class, and of each image. Their metrics are those of `summariser`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bcd.metrics.average_precision import AREAS, SUFFIX

Rows = Mapping[str, np.ndarray]
Summarise = Callable[..., Mapping[str, Any]]
TOGETHER = 64  # images of which a detector's ranking is made at once: its time grows with the square of this


def class_count(rows: Rows) -> int:
    """How many classes the rows of either task have."""
    kind = _kinds(rows)
    return rows[f"{kind[0]}.positives"].shape[1] // AREAS if kind else next(iter(rows.values())).shape[1]


def rows_of_class(rows: Rows, index: int) -> dict[str, np.ndarray]:
    """Rows of the same images that know of one class only: what is counted of it, or its detections and objects.

    A metric is a mean over classes, so that of these rows is the class's own, and nan where the class has none.
    """
    kinds = _kinds(rows)
    if not kinds:
        return {name: values[:, [index]] for name, values in rows.items()}
    found = {"order": rows["order"]}
    for kind in kinds:
        own = rows[f"{kind}.category"] == index
        # The class's detections to the left, in their order, as far as the image with the most of them needs.
        first = np.argsort(~own, axis=1, kind="stable")[:, : own.sum(1).max(initial=0)]
        for name in ("score", "matched", "ignored"):
            found[f"{kind}.{name}"] = np.take_along_axis(rows[f"{kind}.{name}"], first, 1)
        found[f"{kind}.category"] = np.where(np.take_along_axis(own, first, 1), 0, -1)
        found[f"{kind}.positives"] = rows[f"{kind}.positives"][:, AREAS * index : AREAS * (index + 1)]
    return found


def class_metric(metric: str, index: int) -> str:
    """What `by_class` calls a metric of one class."""
    return f"{metric}/{index}"


def by_class(summarise: Summarise, metrics: Sequence[str], classes: int) -> Summarise:
    """A function like `summarise` whose metrics are those of each class, under their `class_metric`.

    metrics: any but `aacc`, which sums over classes.
    """

    def summarised(rows: Rows, weights: np.ndarray | None = None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for index in range(classes):
            own = summarise(rows_of_class(_needed(rows, metrics), index), weights)
            found |= {class_metric(metric, index): own[metric] for metric in metrics}
        return found

    return summarised


def by_image(summarise: Summarise, metric: str, rows: Rows) -> np.ndarray:
    """A metric of each image by itself, float64 (I,): over the classes that it shows; nan where it is undefined."""
    images, wanted = len(next(iter(rows.values()))), _needed(rows, [metric])
    found = []
    for start in range(0, images, TOGETHER):
        some = {name: values[start : start + TOGETHER] for name, values in wanted.items()}
        found.append(summarise(some, np.eye(min(TOGETHER, images - start)))[metric])
    return np.concatenate(found)


def _kinds(rows: Rows) -> list[str]:
    """What a detector's rows compare; none in those of segmentation."""
    return [kind for kind in SUFFIX if f"{kind}.score" in rows]


def _needed(rows: Rows, metrics: Sequence[str]) -> Rows:
    """The counts of these metrics; a detector's rows are needed whole."""
    if _kinds(rows):
        return rows
    counted = {"macc" if metric == "aacc" else metric for metric in metrics}
    return {name: values for name, values in rows.items() if name.rpartition(".")[0] in counted}
