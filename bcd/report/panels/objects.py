"""Rows of pictures for detection: image, annotated objects and detected ones, and what is wrong with these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from bcd.config.schema.data import DataUse
from bcd.data.objects.masks import mask
from bcd.data.objects.split import Objects, ObjectSplit, open_objects
from bcd.metrics import MetricOptions
from bcd.metrics.boundary import band_width, class_band
from bcd.report.panels.colours import ERROR_COLOUR
from bcd.report.panels.layout import enlarged, enlargement, in_a_row

SHOWN_SCORE = 0.5
HIT_IOU = 0.5
NOTHING = 255  # no object, in a map of object classes
OPACITY = 0.55
MARKS = (("no such object, or wrong at a boundary", ERROR_COLOUR),)


@dataclass(frozen=True)
class Drawn:
    """Objects of one image: boxes float (k, 4), corners in pixels; classes int (k,); masks uint8 (k, H, W) or None."""

    boxes: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | None = None


def read_objects(archive: Mapping[str, np.ndarray]) -> dict[int, Drawn]:
    """Image index in the split -> what of its detections is shown, from a run's predictions file."""
    parts: dict[int, dict[str, np.ndarray]] = {}
    for name in archive:
        index, _, part = name.partition(".")
        parts.setdefault(int(index), {})[part] = archive[name]
    return {index: shown(parts[index]) for index in sorted(parts)}


def shown(arrays: Mapping[str, np.ndarray]) -> Drawn:
    """The detections with a score of at least SHOWN_SCORE, best last, so that they are drawn on top."""
    order = np.argsort(arrays["scores"], kind="stable")
    order = order[arrays["scores"][order] >= SHOWN_SCORE]
    masks = arrays["masks"][order] if "masks" in arrays else None
    return Drawn(arrays["boxes"][order], arrays["classes"][order], masks)


def row_drawer(
    root: Path, data: DataUse, split: str, palette: np.ndarray, *, masks: bool
) -> Callable[[int, Mapping[str, Drawn]], np.ndarray]:
    """A function that draws the row of one image of a split from its index and the predictions for it."""
    images = opened(root, data.model_dump_json(), split, masks)

    def draw(index: int, predictions: Mapping[str, Drawn]) -> np.ndarray:
        image, truth, _ = images.read(index)
        return object_row(image, annotated(truth, image.shape[:2]), predictions, palette)

    return draw


def object_row(image: np.ndarray, truth: Drawn, predictions: Mapping[str, Drawn], palette: np.ndarray) -> np.ndarray:
    """One row of pictures: image, annotations and each prediction, see `object_tiles`."""
    factor = enlargement(image.shape)
    return in_a_row([enlarged(image, factor), *object_tiles(image, truth, predictions, palette, factor)])


def object_tiles(
    image: np.ndarray, truth: Drawn, predictions: Mapping[str, Drawn], palette: np.ndarray, factor: int
) -> list[np.ndarray]:
    """Tiles of the annotated objects and of each prediction, enlarged by the whole `factor`; uint8 (H', W', 3) RGB.

    Objects have the colour of their class, as a box and, where there are masks, a transparent area. A predicted box is
    white if it overlaps no annotated box of its class with an IoU of at least one half. A pixel of a predicted mask map
    is white where it is a *boundary error*: of the wrong class, within the band of Boundary IoU. That band has 2 % of
    the image diagonal on either side of an annotated outline.
    """
    known = _class_map(truth, image.shape[:2])
    everywhere = np.ones(known.shape, bool)
    ids = known + np.uint8(1)  # so that NOTHING, which wraps to 0, is a class like the others
    band = class_band(ids, everywhere, band_width(known.shape, MetricOptions().boundary_ratio), frame=False)
    tiles = [_tile(image, truth, palette, factor, None, [True] * len(truth.boxes))]
    for found in predictions.values():
        wrong = band & (_class_map(found, known.shape) != known) if found.masks is not None else None
        hits = [_is_hit(box, kind, truth) for box, kind in zip(found.boxes, found.classes, strict=True)]
        tiles.append(_tile(image, found, palette, factor, wrong, hits))
    return tiles


def _tile(
    image: np.ndarray, objects: Drawn, palette: np.ndarray, factor: int, wrong: np.ndarray | None, hits: Sequence[bool]
) -> np.ndarray:
    """The image with objects on it; `wrong` pixels are white, and boxes without a hit."""
    canvas = image.astype(np.float32)
    ids = _class_map(objects, image.shape[:2])
    area = ids != NOTHING
    canvas[area] = (1 - OPACITY) * canvas[area] + OPACITY * palette[ids[area]]
    if wrong is not None:
        canvas[wrong] = ERROR_COLOUR
    tile = np.ascontiguousarray(enlarged(canvas.astype(np.uint8), factor))
    for box, kind, hit in zip(objects.boxes * factor, objects.classes, hits, strict=True):
        colour = palette[kind].tolist() if hit else ERROR_COLOUR
        left, top, right, bottom = np.round(box).astype(int).tolist()
        cv2.rectangle(tile, (left, top), (right - 1, bottom - 1), colour, 1 if hit else 2)
    return tile


def _class_map(objects: Drawn, shape: tuple[int, ...]) -> np.ndarray:
    """The class of the object on top at each pixel, NOTHING where there is none; uint8 (H, W)."""
    ids = np.full(shape, NOTHING, np.uint8)
    for area, kind in zip(objects.masks if objects.masks is not None else (), objects.classes, strict=False):
        ids[area > 0] = kind
    return ids


def _is_hit(box: np.ndarray, kind: int, truth: Drawn) -> bool:
    """Whether an annotated box of the class overlaps enough."""
    same = truth.boxes[truth.classes == kind]
    if not len(same):
        return False
    corners = np.maximum(box[:2], same[:, :2]), np.minimum(box[2:], same[:, 2:])
    overlap = np.clip(corners[1] - corners[0], 0, None).prod(1)
    area = (box[2:] - box[:2]).prod() + (same[:, 2:] - same[:, :2]).prod(1) - overlap
    return bool((overlap >= HIT_IOU * area).any())


def annotated(truth: Objects, shape: tuple[int, ...]) -> Drawn:
    """What a detector should find; large objects first, so that small ones are drawn on top."""
    kept = np.flatnonzero(~truth.crowd)
    boxes = truth.boxes[kept]
    kept = kept[np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")]
    masks = None
    if truth.segmentation is not None:
        height, width = shape
        areas = (mask(truth.segmentation[i], height, width) for i in kept)
        masks = np.stack([np.zeros(shape, np.uint8), *areas])[1:]
    return Drawn(truth.boxes[kept], truth.classes[kept], masks)


@lru_cache(maxsize=2)
def opened(root: Path, data: str, split: str, masks: bool) -> ObjectSplit:
    """A split that is opened once for the pictures of many runs; `data` is JSON, which can be hashed."""
    return open_objects(root, DataUse.model_validate_json(data), split, masks=masks)
