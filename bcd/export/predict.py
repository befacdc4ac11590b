"""A model on a folder of images: class maps, boxes and masks, and overlays to look at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from bcd.data.decode import read_image
from bcd.data.palette import palette_of
from bcd.data.semantic.transforms import resize_linear
from bcd.errors import UserError
from bcd.export import journal
from bcd.export.finished import Finished
from bcd.export.formats import of_name
from bcd.export.runtime import Opened
from bcd.export.sidecar import View
from bcd.export.standin import ExportedSegmentor, detections
from bcd.export.view import batch, entering, shown, view_of
from bcd.files import alone, atomic_write, read_bytes, sha256_file
from bcd.models.detection.detector import Detections, Detector
from bcd.runs.spec import digest
from bcd.tasks.semantic import predict as predict_map
from bcd.train.trained import load_trained

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".jp2", ".tif", ".tiff", ".webp")
OPACITY = 0.55
NAMED = 10  # images that cannot be read, before a message only counts the rest
SHOWN_SCORE = 0.5  # of an object on an overlay; the JSON has all of them
Progress = Callable[[str, int, int | None], None]  # what, how many are done, of how many


@dataclass(frozen=True)
class Predictor:
    """A model with what it takes to show its predictions.

    name     tells it from every other model
    classes  names in the order of their ids
    palette  uint8 (classes, 3) RGB
    predict  an image uint8 (H, W, 3) RGB to class ids uint8 (H, W), or to a detector's `Detections` at that size
    """

    task: str
    name: str
    classes: list[str]
    palette: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray | Detections]


def of_file(opened: Opened) -> Predictor:
    """An exported file; an image that it has no room for is resized to what it takes, and its prediction back."""
    metadata, path = opened.metadata, Path(opened.name)
    name = digest([sha256_file(path.with_suffix(suffix)) for suffix in of_name(metadata.format).SUFFIXES])
    fixed = None if metadata.dynamic else (metadata.view.height, metadata.view.width)
    palette = np.array(metadata.palette, np.uint8)
    if metadata.task != "semantic":
        return Predictor(metadata.task, name, metadata.classes, palette, lambda image: objects(opened, image, fixed))
    model, view = ExportedSegmentor(opened), metadata.view
    return Predictor(metadata.task, name, metadata.classes, palette, lambda image: class_map(model, image, view, fixed))


def of_run(run: Finished) -> Predictor:
    """A finished run in PyTorch, shown images as its evaluation shows them."""
    model, spec = load_trained(run.folder)
    task, data, view = spec.training.task, spec.training.data, view_of(run, None)
    palette, name = palette_of(data), digest([spec.hash, run.weights_sha256, view.model_dump()])
    if not isinstance(model, Detector):
        return Predictor(task, name, data.classes, palette, lambda image: class_map(model, image, view, None))
    return Predictor(task, name, data.classes, palette, lambda image: detect(model, image, view))


def detect(model: Detector, image: np.ndarray, view: View) -> Detections:
    """What a detector finds in an image uint8 (H, W, 3), in its pixels."""
    part = shown(image, view)
    size, original = (part.shape[0], part.shape[1]), (image.shape[0], image.shape[1])
    with torch.no_grad():
        return model.detect(torch.from_numpy(batch([part], view)), [size], [original])[0]


def class_map(model: torch.nn.Module, image: np.ndarray, view: View, fixed: tuple[int, int] | None) -> np.ndarray:
    """Class ids uint8 (H, W) of an image uint8 (H, W, 3); `fixed`: the only size of input that the model takes."""
    part = shown(image, view)
    height, width = part.shape[:2]
    if fixed and view.sliding:
        part = resize_linear(part, (max(height, fixed[0]), max(width, fixed[1])))
    elif fixed and (height, width) != fixed:
        part = resize_linear(part, fixed)
    _, ids = predict_map(model, torch.from_numpy(batch([part], view)), (image.shape[0], image.shape[1]), view.sliding)
    return ids[0].numpy().astype(np.uint8)


def objects(opened: Opened, image: np.ndarray, fixed: tuple[int, int] | None) -> Detections:
    """What an exported detector finds in an image uint8 (H, W, 3), in its pixels."""
    view = opened.metadata.view
    part = shown(image, view)
    rows, columns = fixed or batch([part], view).shape[2:]
    planes, size = entering(part, view, (rows, columns))
    return detections(opened.run(planes), opened, (rows, columns), size, (image.shape[0], image.shape[1]))


def predict_folder(
    predictor: Predictor, folder: Path, out: Path, *, force: bool = False, progress: Progress
) -> tuple[int, int]:
    """Predict every image of a folder and those below it into `out`; returns how many there are, and were left to do.

    `overlays/NAME.png` shows the prediction on the image. A segmentor's class ids are in `labels/NAME.png`, with a
    palette; a detector's objects in `detections.json`, in the layout of COCO, and its masks in `masks/NAME.png`, whose
    pixels are 1, 2, ... for the image's first, second, ... object of that file, best on top, and 0 elsewhere.

    An image that cannot be read is passed by. `journal.NAME` says what is done, so the same call does what is left:
    images that are new, that have changed, or whose overlay is gone.

    Raises UserError for a folder without images, two images of one name, an `out` that is a file or, unless `force`,
    holds something else; while another process works in it; and at the end, naming them, for unreadable images.
    """
    images = {name: path for name, path in images_in(folder).items() if not path.is_relative_to(out)}
    if not images:
        raise UserError(f"{folder} holds no images but those of --out {out}; name another folder")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; name a folder")
    unread: list[str] = []
    with alone(out / journal.NAME, f"--out {out}: another process predicts into it; wait for it, or name another"):
        what, new = f"{predictor.name} {folder.resolve()}", 0
        done = journal.begin(out, what, force=force)
        for number, (name, path) in enumerate(images.items(), 1):
            try:
                sha256, image = _left_to_do(path, done.get(name), out / "overlays" / name)
            except UserError as error:
                done.pop(name, None)
                unread.append(str(error))
            else:
                if image is not None:
                    done[name] = journal.Done(sha256, _predicted(predictor, image, out, name))
                    journal.note(out, name, done[name])
                    new += 1
            progress("images", number, len(images))
        if predictor.task != "semantic":
            atomic_write(out / "detections.json", json.dumps(_coco(predictor, images, folder, done)) + "\n")
        journal.write(out, what, done)
        if unread:
            raise UserError(_left(unread, len(images), out))
    return len(images), new


def _left_to_do(path: Path, known: journal.Done | None, overlay: Path) -> tuple[str, np.ndarray | None]:
    """The hash of an image file, and its pixels uint8 (H, W, 3) unless they are predicted already."""
    data = read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    is_done = known and known.sha256 == sha256 and overlay.exists()
    return sha256, None if is_done else read_image(data, str(path))


def _predicted(predictor: Predictor, image: np.ndarray, out: Path, name: str) -> dict[str, Any] | None:
    """Write what is predicted of an image uint8 (H, W, 3), its overlay last; returns a detector's objects as JSON."""
    found, entry = predictor.predict(image), None
    if isinstance(found, Detections):
        entry = _entry(image, found)
        if found.masks is not None:
            atomic_write(out / "masks" / name, as_png(instance_map(found)))
        picture = object_overlay(image, found, predictor)
    else:
        atomic_write(out / "labels" / name, as_png(found, predictor.palette))
        picture = blended(image, predictor.palette[found], np.ones(found.shape, bool))
    atomic_write(out / "overlays" / name, as_png(picture))
    return entry


def _left(unread: list[str], images: int, out: Path) -> str:
    """What is said of images that cannot be read, at the end."""
    more = f"; and {len(unread) - NAMED} more" if len(unread) > NAMED else ""
    return (
        f"{images - len(unread)} of {images} images are predicted into {out}; once the others are mended or gone, the "
        f"same command does the rest: {'; '.join(unread[:NAMED])}{more}"
    )


def images_in(folder: Path) -> dict[str, Path]:
    """Name of the result -> image, of a folder and those below it, in the order of their paths."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name one that holds images")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            name = path.relative_to(folder).with_suffix(".png").as_posix()
            if name in found:
                raise UserError(f"{path} and {found[name]} would both become {name}; rename one of them")
            found[name] = path
    if not found:
        raise UserError(f"{folder} holds no images ({', '.join(SUFFIXES)}); name a folder that does")
    return found


def blended(image: np.ndarray, colours: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The image uint8 (H, W, 3) with `colours` of the same shape laid over it `where` (H, W) is true."""
    canvas = image.astype(np.float32)
    canvas[where] = (1 - OPACITY) * canvas[where] + OPACITY * colours[where]
    return canvas.round().astype(np.uint8)


def object_overlay(image: np.ndarray, found: Detections, predictor: Predictor) -> np.ndarray:
    """The objects of a score of SHOWN_SCORE or more: masks transparent, boxes with class and score; best on top."""
    canvas = image
    drawn = [i for i in range(len(found.scores)) if found.scores[i] >= SHOWN_SCORE][::-1]
    for i in drawn if found.masks is not None else ():
        colours = np.broadcast_to(predictor.palette[int(found.classes[i])], image.shape)
        canvas = blended(canvas, colours, found.masks[i].numpy() > 0)  # type: ignore[index]
    canvas = np.ascontiguousarray(canvas)
    for i in drawn:
        kind = int(found.classes[i])
        colour = predictor.palette[kind].tolist()
        left, top, right, bottom = found.boxes[i].round().int().tolist()
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), colour, 2)
        text = f"{predictor.classes[kind]} {found.scores[i]:.2f}"
        cv2.putText(canvas, text, (left + 2, top + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return canvas


def instance_map(found: Detections) -> np.ndarray:
    """Number of the object on top at each pixel, from 1, and 0 where there is none: uint8 (H, W), of at most 255."""
    assert found.masks is not None
    ids = np.zeros(found.masks.shape[1:], np.uint8)
    for i in reversed(range(min(255, len(found.masks)))):
        ids[found.masks[i].numpy() > 0] = i + 1
    return ids


def as_png(picture: np.ndarray, palette: np.ndarray | None = None) -> bytes:
    """Colours uint8 (H, W, 3), or ids uint8 (H, W), as a PNG; `palette`, uint8 (C, 3), has the colours of ids."""
    from io import BytesIO

    from PIL import Image

    image, data = Image.fromarray(picture), BytesIO()
    if palette is not None:
        image.putpalette(palette.ravel().tolist())
    image.save(data, format="PNG")
    return data.getvalue()


def _entry(image: np.ndarray, found: Detections) -> dict[str, Any]:
    """The size of an image and its objects, as JSON values in the layout of COCO, but for their numbers."""
    from bcd.tasks.detection import coco_results

    objects = []
    for entry in coco_results(found, 0):
        result: dict[str, Any] = dict(entry) | {"iscrowd": 0, "category_id": entry["category_id"] + 1}
        result["area"] = result["bbox"][2] * result["bbox"][3]
        if code := result.get("segmentation"):
            result["segmentation"] = {"size": list(code["size"]), "counts": code["counts"].decode()}
        objects.append(result)
    return {"height": image.shape[0], "width": image.shape[1], "objects": objects}


def _coco(
    predictor: Predictor, images: Mapping[str, Path], folder: Path, done: Mapping[str, journal.Done]
) -> dict[str, Any]:
    """The objects of all images that are done, numbered, in the layout of COCO."""
    listed, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for number, (name, path) in enumerate(images.items(), 1):
        if name in done:
            entry, file = done[name].found or {}, path.relative_to(folder).as_posix()
            listed.append({"id": number, "file_name": file, "height": entry["height"], "width": entry["width"]})
            for one in entry["objects"]:
                annotations.append(one | {"id": len(annotations) + 1, "image_id": number})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(predictor.classes)]
    return {"images": listed, "categories": categories, "annotations": annotations}
