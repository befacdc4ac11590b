"""Metrics from per-image rows; definitions and choices are in docs/reference/metrics.md."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from bcd.metrics.boundary import boundary, boundary_f, boundary_iou
from bcd.metrics.detection import detection_rows, summarise_detection
from bcd.metrics.regions import region_pieces
from bcd.metrics.rows import load_arrays, load_rows, per_class, save_rows, stack, summarise
from bcd.metrics.semantic import MetricOptions, image_counts


def summariser(task: str, metrics: Sequence[str] | None = None) -> Callable[..., Mapping[str, Any]]:
    """The function that turns the evaluation rows of a task into its metrics, see `summarise`.

    metrics: those that are wanted, all by default; a detector's cost time, and no others are computed.
    """
    return summarise if task == "semantic" else partial(summarise_detection, metrics=metrics)


__all__ = [
    "MetricOptions",
    "boundary",
    "boundary_f",
    "boundary_iou",
    "detection_rows",
    "image_counts",
    "load_arrays",
    "load_rows",
    "per_class",
    "region_pieces",
    "save_rows",
    "stack",
    "summarise",
    "summarise_detection",
    "summariser",
]
