"""Pictures of detected objects beside the annotated ones: boxes, masks, and what is wrong at their boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from bcd.metrics import MetricOptions
from bcd.metrics.boundary import band_width, class_band

SHOWN_SCORE = 0.5
HIT_IOU = 0.5
NOTHING = 255  # no object, in a map of object classes
OPACITY = 0.55


@dataclass(frozen=True)
class Drawn:
    """Objects of one image: boxes float (k, 4), corners in pixels; classes int (k,); masks uint8 (k, H, W) or None."""

    boxes: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | None = None


def shown(arrays: Mapping[str, np.ndarray]) -> Drawn:
    """The detections with a score of at least SHOWN_SCORE, best last, so that they are drawn on top."""
    order = np.argsort(arrays["scores"], kind="stable")
    order = order[arrays["scores"][order] >= SHOWN_SCORE]
    masks = arrays["masks"][order] if "masks" in arrays else None
    return Drawn(arrays["boxes"][order], arrays["classes"][order], masks)


def object_tiles(
    image: np.ndarray,
    truth: Drawn,
    predictions: Mapping[str, Drawn],
    palette: np.ndarray,
    factor: int,
    error_colour: tuple[int, int, int],
) -> list[np.ndarray]:
    """Tiles of the annotated objects and of each prediction, enlarged by the whole `factor`; uint8 (H', W', 3) RGB.

    Objects have the colour of their class, as a box and, where there are masks, a transparent area. A predicted box is
    drawn in `error_colour` if it overlaps no annotated box of its class with an IoU of at least one half. A pixel of a
    predicted mask map has it where it is a *boundary error*: within the band that Boundary IoU looks at (2 % of the
    image diagonal on either side of an annotated outline) and of the wrong class.
    """
    known = _class_map(truth, image.shape[:2])
    band = class_band(
        known, np.ones(known.shape, bool), band_width(known.shape, MetricOptions().boundary_ratio), frame=False
    )
    tiles = [_drawn(image, truth, palette, factor, None, error_colour, [True] * len(truth.boxes))]
    for found in predictions.values():
        wrong = band & (_class_map(found, known.shape) != known) if found.masks is not None else None
        hits = [_is_hit(box, kind, truth) for box, kind in zip(found.boxes, found.classes, strict=True)]
        tiles.append(_drawn(image, found, palette, factor, wrong, error_colour, hits))
    return tiles


def _class_map(objects: Drawn, shape: tuple[int, int]) -> np.ndarray:
    """The class of the object on top at each pixel, NOTHING where there is none; uint8 (H, W)."""
    ids = np.full(shape, NOTHING, np.uint8)
    for mask, kind in zip(objects.masks if objects.masks is not None else (), objects.classes, strict=False):
        ids[mask > 0] = kind
    return ids


def _is_hit(box: np.ndarray, kind: int, truth: Drawn) -> bool:
    same = truth.boxes[truth.classes == kind]
    if not len(same):
        return False
    corners = np.maximum(box[:2], same[:, :2]), np.minimum(box[2:], same[:, 2:])
    overlap = np.clip(corners[1] - corners[0], 0, None).prod(1)
    area = (box[2:] - box[:2]).prod() + (same[:, 2:] - same[:, :2]).prod(1) - overlap
    return bool((overlap >= HIT_IOU * area).any())


def _drawn(image, objects: Drawn, palette, factor: int, wrong, error_colour, hits) -> np.ndarray:
    canvas = image.astype(np.float32)
    ids = _class_map(objects, image.shape[:2])
    area = ids != NOTHING
    canvas[area] = (1 - OPACITY) * canvas[area] + OPACITY * palette[ids[area]]
    if wrong is not None:
        canvas[wrong] = error_colour
    tile = np.ascontiguousarray(canvas.astype(np.uint8).repeat(factor, 0).repeat(factor, 1))
    for box, kind, hit in zip(objects.boxes * factor, objects.classes, hits, strict=True):
        colour = palette[kind].tolist() if hit else error_colour
        left, top, right, bottom = np.round(box).astype(int).tolist()
        cv2.rectangle(tile, (left, top), (right - 1, bottom - 1), colour, 1 if hit else 2)
    return tile
