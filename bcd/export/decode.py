"""Raw outputs of a dense detector to boxes, in numpy alone: this file is copied beside an exported detector.

    outputs = dict(zip(metadata["outputs"], session.run(None, {"image": image})))  # metadata: JSON, the property `bcd`
    found = decode(outputs, metadata["decoding"], size=(height, width), padded=image.shape[2:])

The rules are those of torchvision's RetinaNet and FCOS (torchvision/models/detection): the best anchors of each level,
boxes clipped to the image, per class the suppression of what overlaps a better one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

LARGEST_SCALE = np.log(1000 / 16)  # of a side against its anchor's, torchvision's `bbox_xform_clip`


def decode(
    outputs: Mapping[str, np.ndarray], decoding: Mapping[str, Any], size: tuple[int, int], padded: tuple[int, int]
) -> dict[str, np.ndarray]:
    """The objects in one image, best first.

    Args:
        outputs: `class_logits` (1, A, K), `box_deltas` (1, A, 4) and, of FCOS, `centerness` (1, A, 1).
        decoding: what the file's metadata says under that name.
        size: height and width of the image's real part in the input; boxes are clipped to it.
        padded: height and width of the input.

    Returns:
        boxes float32 (m, 4), corners x1 y1 x2 y2 in pixels of the input; scores float32 (m,), 0..1; classes int64 (m,).
    """
    scores = _sigmoid(outputs["class_logits"][0])
    if "centerness" in outputs:
        scores = np.sqrt(scores * _sigmoid(outputs["centerness"][0]))
    deltas, anchors = outputs["box_deltas"][0], anchors_of(decoding, padded)
    parts, start = [], 0
    for level in anchors:
        stop = start + len(level)
        parts.append(_of_level(scores[start:stop], deltas[start:stop], level, decoding, size))
        start = stop
    boxes, kept, classes = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = suppressed(boxes, kept, classes, decoding["nms_threshold"])[: decoding["max_detections"]]
    return {"boxes": boxes[order], "scores": kept[order], "classes": classes[order]}


def anchors_of(decoding: Mapping[str, Any], padded: tuple[int, int]) -> list[np.ndarray]:
    """The anchors of each level, float32 (A, 4), row by row, those of a cell together."""
    height, width = padded
    found = []
    for level in decoding["levels"]:
        rows, columns = (-(-side // 2 ** level["level"]) for side in (height, width))
        y, x = np.meshgrid(
            np.arange(rows, dtype=np.float32) * (height // rows),
            np.arange(columns, dtype=np.float32) * (width // columns),
            indexing="ij",
        )
        shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        found.append((shifts + np.array(level["cell"], np.float32)).reshape(-1, 4))
    return found


def suppressed(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, threshold: float) -> np.ndarray:
    """Indices, best first, of boxes that overlap no better one of their class by an IoU above `threshold`."""
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        corners = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        overlap = np.clip(corners[1] - corners[0], 0, None).prod(1)
        union = area[best] + area[rest] - overlap
        order = rest[(overlap <= threshold * union) | (classes[rest] != classes[best])]
    return np.array(kept, np.int64)


def _of_level(
    scores: np.ndarray, deltas: np.ndarray, anchors: np.ndarray, decoding: Mapping[str, Any], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores and classes of the best pairs of anchor and class above the threshold."""
    flat = scores.ravel()
    above = np.flatnonzero(flat > decoding["score_threshold"])
    best = above[np.argsort(-flat[above], kind="stable")][: decoding["candidates"]]
    rows, classes = np.divmod(best, scores.shape[1])
    corners = _corners if decoding["coder"] == "sides" else _from_centre
    boxes = corners(deltas[rows], anchors[rows])
    height, width = size
    return boxes.clip(0, np.array([width, height, width, height], np.float32)), flat[best], classes


def _corners(deltas: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """FCOS: distances from the anchor's centre to the four sides, in units of the anchor's."""
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    sides = np.tile(anchors[:, 2:] - anchors[:, :2], 2)
    scaled = deltas * sides
    return np.concatenate([centre - scaled[:, :2], centre + scaled[:, 2:]], 1).astype(np.float32)


def _from_centre(deltas: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """RetinaNet: shifts of the centre in units of the anchor's sides, and logarithms of the sides' factors."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centre = anchors[:, :2] + sides / 2 + deltas[:, :2] * sides
    half = np.exp(np.minimum(deltas[:, 2:], LARGEST_SCALE)) * sides / 2
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))
