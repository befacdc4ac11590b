"""Semantic-segmentation metrics from per-image counts; definitions and choices are in docs/metrics.md."""

from bcd.metrics.boundary import boundary, boundary_f, boundary_iou
from bcd.metrics.regions import region_pieces
from bcd.metrics.rows import iou_per_class, load_rows, save_rows, stack, summarise
from bcd.metrics.semantic import MetricOptions, image_counts

__all__ = [
    "MetricOptions",
    "boundary",
    "boundary_f",
    "boundary_iou",
    "image_counts",
    "iou_per_class",
    "load_rows",
    "region_pieces",
    "save_rows",
    "stack",
    "summarise",
]
