"""labelme's files, one for each image, as the COCO document that the other files hold.

The fields are those of https://github.com/wkentaro/labelme. The shapes of one label and one `group_id` are one object,
as in its examples/instance_segmentation/labelme2coco.py.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from bcd.data import decode, tree
from bcd.data.formats._described import PARAMS, below, common
from bcd.data.objects.annotations import Instances
from bcd.data.objects.masks import run_length_code
from bcd.errors import UserError

FIELDS = {"shapes": list, "imagePath": str, "imageHeight": int, "imageWidth": int}
CIRCLE = 32  # corners of the polygon in a circle's place, which it misses by half a per cent of the radius at most
AREAS = "polygon, rectangle, circle and mask"


class File(NamedTuple):
    """One of labelme's files: its path, that of its image, and what it holds but for the image itself."""

    where: str
    image: str
    content: dict[str, Any]


def read_all(files: tree.Tree, pattern: str, folder: str) -> list[File]:
    """The files that the pattern names, by their names; `folder`: of the images, where a file does not say it.

    Raises UserError for a pattern that names no file, a file that is none of labelme's, an image that is not there, and
    an image with two files.
    """
    named = sorted(path for path in files.paths if common(path, pattern) is not None)
    if not named:
        raise UserError(f"{files.dataset} has no file {pattern}; put some there, or correct coco.annotations {PARAMS}")
    found: dict[str, File] = {}
    for where in named:
        content = _read(files, where)
        path = _image_of(files, where, content["imagePath"], folder)
        if path in found:
            raise UserError(f"{found[path].where} and {where} are both of the image {path}; take one of them away")
        found[path] = File(where, path, content)
    return list(found.values())


def document(labelled: Sequence[File]) -> Instances:
    """The COCO document of labelme's files; the id of an image is its path, that of an object its first shape's number.

    An annotation has no area; `bcd.data.objects.annotations.parse` takes that of its segmentation.

    Raises UserError for a shape that covers nothing.
    """
    images: list[Any] = []
    entries: list[Any] = []
    for where, path, content in labelled:
        height, width = content["imageHeight"], content["imageWidth"]
        images.append({"id": path, "file_name": path, "height": height, "width": width})
        for parts in _objects(content["shapes"]):
            drawn = [_drawn(shape, number, where, height, width) for number, shape in parts]
            box, segmentation = _joined(drawn, height, width)
            known = {"id": parts[0][0], "image_id": path, "category_id": parts[0][1]["label"], "iscrowd": 0}
            entries.append({**known, "bbox": box, "segmentation": segmentation})
    names: list[Any] = [{"id": name, "name": name} for name in sorted({entry["category_id"] for entry in entries})]
    return {"images": images, "categories": names, "annotations": entries}


def _read(files: tree.Tree, where: str) -> dict[str, Any]:
    try:
        content = json.loads(files.read(where))
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); save it anew") from None
    for field, kind in FIELDS.items():
        if not isinstance(content, dict) or not isinstance(content.get(field), kind):
            raise UserError(
                f"{where}: '{field}' is missing or of a wrong type, so this is no file of labelme; save it anew, or "
                f"correct coco.annotations {PARAMS}"
            )
    return {field: content[field] for field in FIELDS}


def _image_of(files: tree.Tree, where: str, stated: str, folder: str) -> str:
    """The image's path: as the file states it, seen from where it lies; or under its name there, or in the folder."""
    here, path = PurePosixPath(where).parent, PurePosixPath(stated.replace("\\", "/"))
    for candidate in (normpath(str(here / path)), str(here / path.name), below(folder) + path.name):
        if candidate in files.paths:
            return candidate
    raise UserError(f"{where}: imagePath {stated} is no file; put it there, or correct imagePath")


def _objects(shapes: Sequence[Any]) -> list[list[tuple[int, Any]]]:
    """The shapes, numbered from 1, of each object."""
    found: dict[object, list[tuple[int, Any]]] = {}
    for number, shape in enumerate(shapes, 1):
        group = shape.get("group_id") if isinstance(shape, dict) else None
        key = number if group is None else (str(shape.get("label")), str(group))
        found.setdefault(key, []).append((number, shape))
    return list(found.values())


def _drawn(shape: Any, number: int, where: str, height: int, width: int) -> Any:
    """What a shape covers: a polygon x1 y1 x2 y2 ..., or a mask as compressed run lengths."""
    at = f"{where}: shape {number}"
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not _points(shape.get("points")):
        raise UserError(f"{at}: it lacks a label, or points of two numbers each; save the file anew")
    at, points, kind = f"{at} ('{shape['label']}')", shape["points"], shape.get("shape_type", "polygon")
    if kind == "mask":
        return _mask(shape, at, height, width)
    if kind == "polygon" and len(points) > 2:
        return [float(edge) for point in points for edge in point]
    if kind == "rectangle" and len(points) > 1:
        (left, top), (right, bottom) = np.min(points, 0).tolist(), np.max(points, 0).tolist()
        return [left, top, right, top, right, bottom, left, bottom]
    if kind == "circle" and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points)
        angles = [2 * math.pi * corner / CIRCLE for corner in range(CIRCLE)]
        return [edge for angle in angles for edge in (x + radius * math.cos(angle), y + radius * math.sin(angle))]
    few = f" of {len(points)} points" if kind == "polygon" else ""
    raise UserError(f"{at} is a {kind}{few}, which covers nothing; take it out, or draw it anew ({AREAS} do)")


def _points(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(point, list) and len(point) == 2 and all(isinstance(edge, int | float) for edge in point)
        for point in value
    )


def _mask(shape: Any, at: str, height: int, width: int) -> Any:
    """A painted mask: a PNG in base64, whose first pixel is at the first point."""
    try:
        data = base64.b64decode(shape.get("mask") or "", validate=True)
        (left, top), *_ = [[round(edge) for edge in point] for point in shape["points"]]
    except (binascii.Error, TypeError, ValueError):
        raise UserError(f"{at}: its mask is no image in base64; paint it anew") from None
    painted = decode.read_image(data, f"{at}: its mask").max(axis=2) > 0
    whole = np.zeros((height, width), np.uint8, order="F")
    part = painted[max(0, -top) : height - top, max(0, -left) : width - left]
    whole[max(0, top) : max(0, top) + part.shape[0], max(0, left) : max(0, left) + part.shape[1]] = part
    code = coco_mask.encode(whole)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def _joined(drawn: Sequence[Any], height: int, width: int) -> tuple[list[float], Any]:
    """The box x, y, width, height and the segmentation of the parts of one object."""
    if not any(isinstance(part, dict) for part in drawn):
        edges = np.concatenate([np.reshape(part, (-1, 2)) for part in drawn])
        (left, top), (right, bottom) = edges.min(0).tolist(), edges.max(0).tolist()
        return [left, top, right - left, bottom - top], list(drawn)
    whole = coco_mask.merge(
        [run_length_code(part if isinstance(part, dict) else [part], height, width) for part in drawn]
    )
    code = {"size": [height, width], "counts": whole["counts"].decode("ascii")}
    return [float(edge) for edge in coco_mask.toBbox(whole)], code
