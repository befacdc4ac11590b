"""The pictures of a page: the test images whose predictions are kept, and what each method makes of them.

Label maps are PNG files of a palette, photographs and drawn boxes WebP; all are data in the page itself.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bcd.data.palette import palette_of
from bcd.label import IGNORE
from bcd.report.panels import objects, semantic
from bcd.report.panels.colours import ERROR_COLOUR, IGNORED_COLOUR
from bcd.report.panels.layout import enlarged, enlargement
from bcd.report.panels.pictures import read_predictions
from bcd.runs.run import Run
from bcd.runs.spec import digest
from bcd.runs.status import Status

LONGEST = 320  # pixels of a picture's longer side; larger images are reduced
QUALITY = 80  # of WebP


@dataclass
class Album:
    """Pictures by name; equal ones are kept once, so tables may share them."""

    pictures: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, data: bytes) -> str:
        """The name of a picture of type `image/<kind>`."""
        uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        name = digest(uri)
        self.pictures[name] = uri
        return name


@dataclass(frozen=True)
class Seen:
    """What a method makes of an image.

    picture  its name in the album
    errors   that of the boundary errors, to be laid over it; None where they are drawn already
    pixels   what the picture shows, uint8 (H, W) or (H, W, 3), to tell how far two differ
    """

    picture: str
    errors: str | None
    pixels: np.ndarray


def viewer(shown: Mapping[str, Status], data: Path, album: Album) -> dict[str, Any]:
    """What the viewer shows of the runs of one pair: JSON values, with the pictures in `album`.

    shown: method -> its run; all are evaluated on the same images. data: the folder `data` of the project.

    Raises UserError if predictions or the dataset are missing or have changed.
    """
    run = next(iter(shown.values())).run
    use = run.training.data
    colours = palette_of(use)
    draw = _semantic if run.training.task == "semantic" else _objects
    return {
        "methods": list(shown),
        "runs": {method: one.run.key.rpartition("/")[2] for method, one in shown.items()},
        "marks": run.training.task == "semantic",
        "legend": [[name, _hex(colour)] for name, colour in zip(use.classes, colours.tolist(), strict=True)],
        "images": draw(run, shown, data / run.files, colours, album),
    }


def _semantic(
    run: Run, shown: Mapping[str, Status], root: Path, colours: np.ndarray, album: Album
) -> list[dict[str, Any]]:
    predictions = {method: read_predictions(one, semantic.read_maps) for method, one in shown.items()}
    split = semantic.opened(root, run.training.data.model_dump_json(), run.evaluation.split)
    palette = _palette(colours)
    images = []
    for index in _common(predictions):
        image, label, name = split.read(index)
        maps = {method: of_images[index] for method, of_images in predictions.items()}
        wrong = semantic.boundary_errors(label, maps.values())
        seen = {
            method: _seen_map(np.where(label == IGNORE, IGNORE, ids), errors, palette, album)
            for (method, ids), errors in zip(maps.items(), wrong, strict=True)
        }
        images.append(_shown(name, photograph(image, album), _map(label, palette, album), seen))
    return images


def _objects(
    run: Run, shown: Mapping[str, Status], root: Path, colours: np.ndarray, album: Album
) -> list[dict[str, Any]]:
    predictions = {method: read_predictions(one, objects.read_objects) for method, one in shown.items()}
    masks = run.training.task == "instance"
    split = objects.opened(root, run.training.data.model_dump_json(), run.evaluation.split, masks)
    images = []
    for index in _common(predictions):
        image, truth, name = split.read(index)
        factor = enlargement(image.shape)
        known = objects.annotated(truth, image.shape[:2])
        found = {method: of_images[index] for method, of_images in predictions.items()}
        label, *tiles = objects.object_tiles(image, known, found, colours, factor)
        seen = {method: Seen(photograph(tile, album), None, tile) for method, tile in zip(found, tiles, strict=True)}
        images.append(_shown(name, photograph(enlarged(image, factor), album), photograph(label, album), seen))
    return images


def _common(predictions: Mapping[str, Mapping[int, Any]]) -> list[int]:
    """The images of which every run has predictions."""
    return sorted(set.intersection(*(set(of_images) for of_images in predictions.values())))


def _shown(name: str, image: str, label: str, seen: Mapping[str, Seen]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "label": label,
        "seen": {method: [one.picture, one.errors] for method, one in seen.items()},
        "differ": differences([one.pixels for one in seen.values()]),
    }


def differences(pictures: Sequence[np.ndarray]) -> list[list[float]]:
    """The share of pixels, 0..1, in which any two pictures differ: row i has those of i with 0..i-1.

    pictures: uint8 (H, W) or (H, W, 3), all of one shape.
    """
    rows: list[list[float]] = [[] for _ in pictures]
    for first, second in combinations(range(len(pictures)), 2):
        other = pictures[first] != pictures[second]
        rows[second].append(round(float((other.any(2) if other.ndim == 3 else other).mean()), 4))
    return rows


# --- files ---------------------------------------------------------------------------------------------------------


def _seen_map(ids: np.ndarray, wrong: np.ndarray, palette: bytes, album: Album) -> Seen:
    overlay = _png(wrong.astype(np.uint8), bytes((0, 0, 0, *ERROR_COLOUR)), album, transparent=0)
    return Seen(_map(ids, palette, album), overlay, ids)


def _map(ids: np.ndarray, palette: bytes, album: Album) -> str:
    return _png(ids, palette, album)


def _palette(colours: np.ndarray) -> bytes:
    """RGB of the 256 ids of a label map: those of the classes, and that of pixels without a label."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    table[IGNORE] = IGNORED_COLOUR
    return table.tobytes()


def _png(ids: np.ndarray, palette: bytes, album: Album, transparent: int | None = None) -> str:
    picture = Image.fromarray(ids)
    picture.putpalette(palette)
    data = BytesIO()
    options = {} if transparent is None else {"transparency": transparent}
    _reduced(picture, Image.Resampling.NEAREST).save(data, format="PNG", optimize=True, **options)
    return album.add("png", data.getvalue())


def photograph(image: np.ndarray, album: Album) -> str:
    """The name in the album of a picture uint8 (H, W, 3) RGB, at most LONGEST pixels long."""
    data = BytesIO()
    picture = _reduced(Image.fromarray(image), Image.Resampling.LANCZOS)
    picture.save(data, format="WEBP", quality=QUALITY, method=6)
    return album.add("webp", data.getvalue())


def _reduced(picture: Image.Image, resampling: Image.Resampling) -> Image.Image:
    scale = LONGEST / max(picture.size)
    if scale >= 1:
        return picture
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), resampling)


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour)
