"""Rows of pictures for semantic segmentation: image, label map and predicted label maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from bcd.config.schema.data import DataUse
from bcd.data.semantic.split import Split, open_split
from bcd.label import IGNORE
from bcd.metrics import MetricOptions
from bcd.metrics.boundary import band_width, class_band
from bcd.report.panels.colours import ERROR_COLOUR, IGNORED_COLOUR
from bcd.report.panels.layout import enlarged, enlargement, in_a_row

MARKS = (("no label", IGNORED_COLOUR), ("wrong at a boundary", ERROR_COLOUR))


def read_maps(archive: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Image index in the split -> class ids uint8 (H, W), from a run's predictions file."""
    return {int(name): archive[name] for name in sorted(archive) if name.isdigit()}


def row_drawer(
    root: Path, data: DataUse, split: str, palette: np.ndarray
) -> Callable[[int, Mapping[str, np.ndarray]], np.ndarray]:
    """A function that draws the row of one image of a split from its index and the predictions for it."""
    images = opened(root, data.model_dump_json(), split)
    return lambda index, predictions: map_row(*images.read(index)[:2], predictions, palette)


def map_row(
    image: np.ndarray, label: np.ndarray, predictions: Mapping[str, np.ndarray], palette: np.ndarray
) -> np.ndarray:
    """One row of pictures: image, label and each prediction, enlarged by a whole factor if they are small.

    A predicted pixel is white where it is a *boundary error*: of the wrong class, within the band of Boundary IoU
    (Cheng et al. 2021). That band has 2 % of the image diagonal on either side of the label's boundaries, and along the
    frame. Pixels without a label are black, and never errors.

    Args:
        image: uint8 (H, W, 3) RGB.
        label: uint8 (H, W), 255 = ignore.
        predictions: title -> uint8 (H, W) class ids.
        palette: uint8 (C, 3) RGB, one colour for each class.

    Returns:
        uint8 (H', W', 3) RGB canvas.
    """
    tiles = [image, _coloured(label, palette)]
    for predicted, wrong in zip(predictions.values(), boundary_errors(label, predictions.values()), strict=True):
        coloured = _coloured(predicted, palette)
        coloured[label == IGNORE] = IGNORED_COLOUR
        coloured[wrong] = ERROR_COLOUR
        tiles.append(coloured)
    factor = enlargement(label.shape)
    return in_a_row([enlarged(tile, factor) for tile in tiles])


def boundary_errors(label: np.ndarray, predictions: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Where each predicted map uint8 (H, W) has a boundary error as `map_row` says; bool (H, W)."""
    valid = label != IGNORE
    band = class_band(label, valid, band_width(label.shape, MetricOptions().boundary_ratio), frame=True) & valid
    return [band & (predicted != label) for predicted in predictions]


def _coloured(ids: np.ndarray, palette: np.ndarray) -> np.ndarray:
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    return colours[ids]


@lru_cache(maxsize=2)
def opened(root: Path, data: str, split: str) -> Split:
    """A split that is opened once for the pictures of many runs; `data` is JSON, which can be hashed."""
    return open_split(root, DataUse.model_validate_json(data), split)
