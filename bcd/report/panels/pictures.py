"""The picture of a table and that of a run: test images below each other, with what was predicted for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from bcd.config.schema.suites import Params, Suite
from bcd.data.palette import palette_of
from bcd.data.semantic.split import evenly_spaced
from bcd.errors import UserError
from bcd.files import atomic_write, sha256_file
from bcd.metrics import load_arrays
from bcd.report.content import TEACHER
from bcd.report.outputs import panels_file, panels_made_of, run_hashes
from bcd.report.panels import objects, semantic
from bcd.report.panels.colours import Mark
from bcd.report.panels.layout import framed, png
from bcd.report.tables import find_table
from bcd.runs.expand import runs_of, table_rows
from bcd.runs.run import Run
from bcd.runs.status import Status
from bcd.runs.usable import read_runs

Prediction = TypeVar("Prediction")
Reader = Callable[[Mapping[str, np.ndarray]], dict[int, Prediction]]  # of a predictions file, by image index
Drawer = Callable[[int, Mapping[str, Prediction]], np.ndarray]  # of the row of one image


def table_panels(
    params: Params, suite: Suite, table_name: str, results: Path = Path("results"), data: Path = Path("data")
) -> Path:
    """Write `results/<suite>/figures/<table>-panels.png` and return its path; equal results give equal bytes.

    It shows `table.panels.images` test images of the table's first pair, repetition 0. Columns are image, label,
    teacher (where it was evaluated on the same images) and each of `table.panel_methods`. Raises UserError if a run,
    its predictions or the dataset is missing or has changed.
    """
    table = find_table(suite, table_name)
    all_rows = table_rows(params, suite, table)
    rows = {row.method: row.runs[0] for row in all_rows if row.pair == table.pairs[0] and row.export is None}
    shown = {method: rows[method] for method in (TEACHER, *table.panel_methods)}
    if not same_images(shown[TEACHER], rows["none"]):
        del shown[TEACHER]
    usable = read_runs(suite.name, shown.values(), results, data)
    picture = _picture({method: usable[run.key] for method, run in shown.items()}, table.panels.images, data)
    path = panels_file(results, suite.name, table_name)
    atomic_write(path, png(picture, panels_made_of(table, run_hashes(suite.name, runs_of(all_rows), results))))
    return path


def run_panel(one: Status, data: Path = Path("data"), images: int = 4) -> bytes:
    """PNG bytes of `images` rows (image | label | prediction) of one run; raises what `table_panels` raises."""
    return png(_picture({one.run.method: one}, images, data))


def read_predictions(one: Status, read: Reader[Prediction]) -> dict[int, Prediction]:
    """Image index in the split -> what the run predicted; raises UserError if the file is not the recorded one."""
    path, recorded = one.predictions_file, one.finished.evaluation.predictions_sha256
    if recorded and path.exists() and sha256_file(path) != recorded:
        raise UserError(f"{path} has changed since {one.run.key} was evaluated; {one.measure_again}")
    try:
        return read(load_arrays(path))
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path} cannot be read ({error}); {one.measure_again}") from error


def same_images(one: Run, other: Run) -> bool:
    """Whether two runs are evaluated on the same images, as large in both."""
    return _images_of(one) == _images_of(other)


def _images_of(run: Run) -> tuple[object, ...]:
    """What runs of the same images have in common."""
    return run.files, run.training.task, run.training.data.size, run.evaluation.split


def _picture(shown: Mapping[str, Status], images: int, data: Path) -> np.ndarray:
    """Titles, one row of pictures for each image, legend: uint8 (H, W, 3)."""
    run = next(iter(shown.values())).run
    use, split, root = run.training.data, run.evaluation.split, data / run.files
    palette = palette_of(use)
    marks: tuple[Mark, ...]
    if run.training.task == "semantic":
        draw_maps, marks = semantic.row_drawer(root, use, split, palette), semantic.MARKS
        rows = _rows(shown, images, semantic.read_maps, draw_maps)
    else:
        masks = run.training.task == "instance"
        draw_objects, marks = objects.row_drawer(root, use, split, palette, masks=masks), objects.MARKS
        rows = _rows(shown, images, objects.read_objects, draw_objects)
    colours = zip(use.classes, map(tuple, palette.tolist()), strict=True)
    return framed(rows, ["image", "label", *shown], [*colours, *marks])


def _rows(
    shown: Mapping[str, Status], images: int, read: Reader[Prediction], draw: Drawer[Prediction]
) -> list[np.ndarray]:
    """One row for each of so many images, evenly spaced among those of which all runs have predictions."""
    predictions = {name: read_predictions(one, read) for name, one in shown.items()}
    known = sorted(set.intersection(*(set(of_images) for of_images in predictions.values())))
    chosen = [known[i] for i in evenly_spaced(len(known), min(images, len(known)))]
    if not chosen:
        raise UserError(
            f"{', '.join(shown)}: no predictions were kept for panels; delete the evaluations and run again"
        )
    return [draw(index, {name: of_images[index] for name, of_images in predictions.items()}) for index in chosen]
