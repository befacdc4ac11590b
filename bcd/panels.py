"""Pictures of predictions beside their labels, with the errors at boundaries marked."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bcd.data.split import evenly_spaced, open_split
from bcd.errors import UserError
from bcd.files import atomic_write
from bcd.finished import Finished, read_runs
from bcd.label import IGNORE
from bcd.metrics import MetricOptions
from bcd.metrics.boundary import band_width, class_band
from bcd.schema import Params, Suite
from bcd.spec import table_rows
from bcd.tables import find_table

IGNORED_COLOUR = (0, 0, 0)
ERROR_COLOUR = (255, 255, 255)
BACKGROUND = 225  # grey, so that errors along the frame stand out from the gaps
MIN_SIDE = 192  # images are enlarged by a whole factor until their longer side has this many pixels
GAP, HEADER, FONT_SIZE, SWATCH = 6, 22, 13, 12


def table_panels(
    params: Params, suite: Suite, table_name: str, results: Path = Path("results"), data: Path = Path("data")
) -> Path:
    """Write `results/<suite>/figures/<table>-panels.png` and return its path; equal results give equal bytes.

    It shows `suite.panels.images` test images of the table's first pair, repetition 0: image, label, teacher (where
    it was evaluated on the same images) and each of `suite.panels.methods`. Raises UserError if a run, its
    predictions or the dataset is missing or has changed.
    """
    table = find_table(suite, table_name)
    rows = {row.method: row.runs[0] for row in table_rows(params, suite, table) if row.pair == table.pairs[0]}
    if missing := [method for method in suite.panels.methods if method not in rows]:
        raise UserError(
            f"params/suites/{suite.name}.yaml: panels.methods: '{missing[0]}' is no method of table '{table_name}'; "
            f"choose from {', '.join(rows)}"
        )
    shown = {method: rows[method] for method in ("teacher", *suite.panels.methods)}
    if _images_of(shown["teacher"]) != _images_of(rows["none"]):
        del shown["teacher"]
    finished = read_runs(suite.name, shown.values(), results, data)
    picture = _picture({method: finished[run.key] for method, run in shown.items()}, suite.panels.images, data)
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
    factor = max(1, -(-MIN_SIDE // max(label.shape)))
    enlarged = [tile.repeat(factor, 0).repeat(factor, 1) for tile in tiles]
    return np.concatenate(
        [np.pad(tile, ((0, GAP), (0, GAP), (0, 0)), constant_values=BACKGROUND) for tile in enlarged], 1
    )


def palette_of(data_format: str, classes: int) -> np.ndarray:
    """Class colours uint8 (C, 3): the format module's `PALETTE`, else the bit-interleaved colour map of PASCAL VOC."""
    own = getattr(importlib.import_module(f"bcd.data.{data_format}"), "PALETTE", None)
    if own is not None and len(own) >= classes:
        return np.asarray(own[:classes], np.uint8)
    # VOC's devkit spreads the bits of a class id over the three channels; its id 0 is black, our ignored pixels are.
    ids = np.arange(1, classes + 1)
    channels = [sum(((ids >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
    return np.stack(channels, 1).astype(np.uint8)


def png(canvas: np.ndarray) -> bytes:
    """A uint8 (H, W, 3) RGB canvas as PNG, without times or other metadata."""
    data = BytesIO()
    Image.fromarray(canvas).save(data, format="PNG", optimize=False)
    return data.getvalue()


def read_predictions(one: Finished) -> dict[int, np.ndarray]:
    """Image index in the split -> predicted uint8 (H, W) class ids; raises UserError if they cannot be read."""
    path = one.predictions_file
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {int(name): archive[name] for name in sorted(archive.files) if name.isdigit()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete {one.rows_file.with_suffix('.json')} and {one.file}, then run "
            "`snakemake` to evaluate the run again"
        ) from error


def _images_of(run) -> tuple:
    return run.files, run.config["data"]["size"], run.evaluation["split"]


def _picture(shown: Mapping[str, Finished], images: int, data: Path) -> np.ndarray:
    """Header, one row of pictures for each image, legend: uint8 (H, W, 3)."""
    first = next(iter(shown.values())).run
    split = open_split(data / first.files, first.config["data"], first.evaluation["split"])
    palette = palette_of(first.config["data"]["format"], len(first.config["data"]["classes"]))
    predictions = {name: read_predictions(one) for name, one in shown.items()}
    known = sorted(set.intersection(*(set(maps) for maps in predictions.values())))
    chosen = [known[i] for i in evenly_spaced(len(known), min(images, len(known)))]
    if not chosen:
        raise UserError(
            f"{', '.join(shown)}: no predictions were kept for panels; delete the evaluations and run again"
        )
    rows = []
    for index in chosen:
        image, label, _ = split.read(index)
        rows.append(panel(image, label, {name: maps[index] for name, maps in predictions.items()}, palette))
    body = np.concatenate([_padded(row, max(r.shape[1] for r in rows)) for row in rows])
    heads = _headers(["image", "label", *shown], rows[0].shape[1], body.shape[1])
    return np.concatenate([heads, body, _legend(first.config["data"]["classes"], palette, body.shape[1])])


def _headers(titles: Sequence[str], row_width: int, width: int) -> np.ndarray:
    canvas, draw = _blank(HEADER, width)
    for i, text in enumerate(titles):
        draw.text((i * (row_width // len(titles)), 3), text, fill="black", font=_font())
    return np.asarray(canvas)


def _legend(classes: Sequence[str], palette: np.ndarray, width: int) -> np.ndarray:
    """Swatch and name of each class and of the two marks, in as many lines as they need."""
    entries = [*zip(classes, map(tuple, palette.tolist()), strict=True), ("no label", IGNORED_COLOUR)]
    entries.append(("wrong at a boundary", ERROR_COLOUR))
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
