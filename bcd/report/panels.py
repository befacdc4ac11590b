"""Pictures of predictions beside their labels, with the errors at boundaries marked."""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bcd.config.schema import Params, Suite
from bcd.data.objects.split import Objects, ObjectSplit, mask, open_objects
from bcd.data.semantic.split import Split, evenly_spaced, open_split
from bcd.errors import UserError
from bcd.files import atomic_write
from bcd.label import IGNORE
from bcd.metrics import MetricOptions
from bcd.metrics.boundary import band_width, class_band
from bcd.report.object_panels import Drawn, object_tiles
from bcd.report.object_panels import shown as shown_objects
from bcd.report.tables import find_table
from bcd.runs.expand import table_rows
from bcd.runs.run import Run
from bcd.runs.status import Finished, read_runs
from bcd.runs.store import dump

IGNORED_COLOUR = (0, 0, 0)
ERROR_COLOUR = (255, 255, 255)
MARKS = (("no label", IGNORED_COLOUR), ("wrong at a boundary", ERROR_COLOUR))
OBJECT_MARKS = (("no such object, or wrong at a boundary", ERROR_COLOUR),)
BACKGROUND = 225  # grey, so that errors along the frame stand out from the gaps
MIN_SIDE = 192  # images are enlarged by a whole factor until their longer side has this many pixels
GAP, HEADER, FONT_SIZE, SWATCH = 6, 22, 13, 12


def table_panels(
    params: Params, suite: Suite, table_name: str, results: Path = Path("results"), data: Path = Path("data")
) -> Path:
    """Write `results/<suite>/figures/<table>-panels.png` and return its path; equal results give equal bytes.

    It shows `table.panels.images` test images of the table's first pair, repetition 0: image, label, teacher (where
    it was evaluated on the same images) and each of `table.panels.methods`. Raises UserError if a run, its
    predictions or the dataset is missing or has changed.
    """
    table = find_table(suite, table_name)
    rows = {row.method: row.runs[0] for row in table_rows(params, suite, table) if row.pair == table.pairs[0]}
    if missing := [method for method in table.panels.methods if method not in rows]:
        raise UserError(
            f"params/suites/{suite.name}.yaml: panels.methods: '{missing[0]}' is no method of table '{table_name}'; "
            f"choose from {', '.join(rows)}"
        )
    shown = {method: rows[method] for method in ("teacher", *table.panels.methods)}
    if _images_of(shown["teacher"]) != _images_of(rows["none"]):
        del shown["teacher"]
    finished = read_runs(suite.name, shown.values(), results, data)
    picture = _picture({method: finished[run.key] for method, run in shown.items()}, table.panels.images, data)
    path = results / suite.name / "figures" / f"{table_name}-panels.png"
    atomic_write(path, png(picture))
    return path


def run_panel(one: Finished, data: Path = Path("data"), images: int = 4) -> bytes:
    """PNG bytes of `images` rows (image | label | prediction) of one run; raises what `table_panels` raises."""
    return png(_picture({one.run.method: one}, images, data))


def panel(
    image: np.ndarray, label: np.ndarray, predictions: Mapping[str, np.ndarray], palette: np.ndarray
) -> np.ndarray:
    """One row of pictures: image, label and each prediction, enlarged by a whole factor if they are small.

    A predicted pixel is white where it is a *boundary error*: it lies in the band of the label's boundaries that
    Boundary IoU looks at (2 % of the image diagonal on either side, and along the frame, Cheng et al. 2021) and its
    class is wrong. Pixels without a label are black, and never errors.

    Args:
        image: uint8 (H, W, 3) RGB.
        label: uint8 (H, W), 255 = ignore.
        predictions: title -> uint8 (H, W) class ids.
        palette: uint8 (C, 3) RGB, one colour for each class.

    Returns:
        uint8 (H', W', 3) RGB canvas.
    """
    valid = label != IGNORE
    band = class_band(label, valid, band_width(label.shape, MetricOptions().boundary_ratio), frame=True) & valid
    tiles = [image, _coloured(label, palette)]
    for predicted in predictions.values():
        coloured = _coloured(predicted, palette)
        coloured[~valid] = IGNORED_COLOUR
        coloured[band & (predicted != label)] = ERROR_COLOUR
        tiles.append(coloured)
    factor = _enlargement(label.shape)
    return _in_a_row([tile.repeat(factor, 0).repeat(factor, 1) for tile in tiles])


def object_panel(image: np.ndarray, truth: Drawn, predictions: Mapping[str, Drawn], palette: np.ndarray) -> np.ndarray:
    """One row of pictures of objects: image, annotations and each prediction, see `object_tiles`."""
    factor = _enlargement(image.shape)
    tiles = object_tiles(image, truth, predictions, palette, factor, ERROR_COLOUR)
    return _in_a_row([image.repeat(factor, 0).repeat(factor, 1), *tiles])


def _enlargement(shape: tuple[int, ...]) -> int:
    return max(1, -(-MIN_SIDE // max(shape[:2])))


def _in_a_row(tiles: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.pad(t, ((0, GAP), (0, GAP), (0, 0)), constant_values=BACKGROUND) for t in tiles], 1)


def palette_of(data_format: str, classes: Sequence[str]) -> np.ndarray:
    """Class colours uint8 (C, 3): the format module's `PALETTE` of its `CLASSES`, else the colour map of PASCAL VOC."""
    module = importlib.import_module(f"bcd.data.formats.{data_format}")
    own = getattr(module, "PALETTE", ())
    names = getattr(module, "CLASSES", tuple(classes) if len(own) >= len(classes) else ())
    if set(classes) <= set(names):
        return np.asarray([own[names.index(name)] for name in classes], np.uint8)
    # VOC's devkit spreads the bits of a class id over the three channels; its id 0 is black, our ignored pixels are.
    ids = np.arange(1, len(classes) + 1)
    channels = [sum(((ids >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
    return np.stack(channels, 1).astype(np.uint8)


def png(canvas: np.ndarray) -> bytes:
    """A uint8 (H, W, 3) RGB canvas as PNG, without times or other metadata."""
    data = BytesIO()
    Image.fromarray(canvas).save(data, format="PNG", optimize=False)
    return data.getvalue()


def read_predictions(one: Finished) -> dict[int, Any]:
    """Image index in the split -> what the run predicted: uint8 (H, W) class ids, or the objects as `Drawn`.

    Raises UserError if they cannot be read.
    """
    path = one.predictions_file
    try:
        with np.load(path, allow_pickle=False) as archive:
            if one.run.config["task"] == "semantic":
                return {int(name): archive[name] for name in sorted(archive.files) if name.isdigit()}
            parts: dict[int, dict[str, np.ndarray]] = {}
            for name in archive.files:
                index, _, part = name.partition(".")
                parts.setdefault(int(index), {})[part] = archive[name]
            return {index: shown_objects(parts[index]) for index in sorted(parts)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete {one.rows_file.with_suffix('.json')} and {one.file}, then run "
            "`snakemake` to evaluate the run again"
        ) from error


def _images_of(run) -> tuple:
    return run.files, run.config["task"], run.config["data"]["size"], run.evaluation["split"]


def _picture(shown: Mapping[str, Finished], images: int, data: Path) -> np.ndarray:
    """Header, one row of pictures for each image, legend: uint8 (H, W, 3)."""
    first = next(iter(shown.values())).run
    classes = first.config["data"]["classes"]
    palette = palette_of(first.config["data"]["format"], classes)
    draw = _row_drawer(first, data, palette)
    predictions = {name: read_predictions(one) for name, one in shown.items()}
    known = sorted(set.intersection(*(set(maps) for maps in predictions.values())))
    chosen = [known[i] for i in evenly_spaced(len(known), min(images, len(known)))]
    if not chosen:
        raise UserError(
            f"{', '.join(shown)}: no predictions were kept for panels; delete the evaluations and run again"
        )
    rows = [draw(index, {name: found[index] for name, found in predictions.items()}) for index in chosen]
    body = np.concatenate([_padded(row, max(r.shape[1] for r in rows)) for row in rows])
    heads = _headers(["image", "label", *shown], rows[0].shape[1], body.shape[1])
    marks = MARKS if first.config["task"] == "semantic" else OBJECT_MARKS
    colours = zip(classes, map(tuple, palette.tolist()), strict=True)
    return np.concatenate([heads, body, _legend([*colours, *marks], body.shape[1])])


def _row_drawer(run: Run, data: Path, palette: np.ndarray) -> Callable[[int, Mapping[str, Any]], np.ndarray]:
    """A function that draws the row of pictures of one image of the run's split from the predictions for it."""
    split = _opened(data / run.files, dump(run.config["data"]), run.evaluation["split"], run.config["task"])
    if run.config["task"] == "semantic":
        return lambda index, predictions: panel(*split.read(index)[:2], predictions, palette)

    def draw(index: int, predictions: Mapping[str, Drawn]) -> np.ndarray:
        image, truth, _ = split.read(index)
        return object_panel(image, _annotated(truth, image.shape[:2]), predictions, palette)

    return draw


@lru_cache(maxsize=2)
def _opened(root: Path, config: str, split: str, task: str) -> Split | ObjectSplit:
    """The split, whose annotations are read once for the pictures of many runs."""
    if task == "semantic":
        return open_split(root, json.loads(config), split)
    return open_objects(root, json.loads(config), split, masks=task == "instance")


def _annotated(truth: Objects, shape: tuple[int, int]) -> Drawn:
    """What a detector should find; large objects first, so that small ones are drawn on top."""
    kept = np.flatnonzero(~truth.crowd)
    boxes = truth.boxes[kept]
    kept = kept[np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")]
    masks = None
    if truth.segmentation is not None:
        masks = np.stack([np.zeros(shape, np.uint8), *(mask(truth.segmentation[i], *shape) for i in kept)])[1:]
    return Drawn(truth.boxes[kept], truth.classes[kept], masks)


def _headers(titles: Sequence[str], row_width: int, width: int) -> np.ndarray:
    canvas, draw = _blank(HEADER, width)
    for i, text in enumerate(titles):
        draw.text((i * (row_width // len(titles)), 3), text, fill="black", font=_font())
    return np.asarray(canvas)


def _legend(entries: Sequence[tuple[str, tuple[int, ...]]], width: int) -> np.ndarray:
    """Swatch and name of each class and mark, in as many lines as they need."""
    lines, x, placed = 0, 0, []
    for name, colour in entries:
        advance = SWATCH + 4 + int(_font().getlength(name)) + 14
        if x and x + advance > width:
            lines, x = lines + 1, 0
        placed.append((name, colour, x, lines * HEADER + 4))
        x += advance
    canvas, draw = _blank((lines + 1) * HEADER, width)
    for name, colour, left, top in placed:
        draw.rectangle((left, top, left + SWATCH, top + SWATCH), fill=colour, outline="black")
        draw.text((left + SWATCH + 4, top - 1), name, fill="black", font=_font())
    return np.asarray(canvas)


def _coloured(ids: np.ndarray, palette: np.ndarray) -> np.ndarray:
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    return colours[ids]


def _padded(row: np.ndarray, width: int) -> np.ndarray:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=BACKGROUND)


def _blank(height: int, width: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("RGB", (width, height), (BACKGROUND,) * 3)
    return canvas, ImageDraw.Draw(canvas)


def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(FONT_SIZE)
