"""Pictures of tables and runs: which images and columns they have, and what they refuse."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from support.picture_rows import tiles
from support.suite_results import load
from support.tables import DATA, RESULTS, STUDENT, changed_suite

from bcd.config.schema.suites import Panels, Table
from bcd.data.formats import scenes
from bcd.data.semantic.split import open_split
from bcd.errors import UserError
from bcd.report.panels import run_panel, table_panels
from bcd.report.panels.layout import GAP, HEADER
from bcd.report.panels.pictures import read_predictions
from bcd.report.panels.semantic import read_maps
from bcd.runs.expand import suite_runs
from bcd.runs.usable import read_runs


def student(method="bcd", repetition=0):
    params, suite = load()
    run = suite_runs(params, suite)[f"{STUDENT}/{method}/s{repetition}"]
    return read_runs("smoke", [run], RESULTS, DATA)[run.key]


def test_the_panel_of_a_table_shows_the_predictions_of_repetition_0(project):
    path = table_panels(*load(), "all-labels")
    assert path == Path("results/smoke/figures/all-labels-panels.png")
    canvas = np.asarray(Image.open(path))
    one = student("bcd")
    split = open_split(DATA / "scenes-smoke", one.run.training.data, "test")
    names = ("teacher", "none", "bcd")
    row = canvas[HEADER : HEADER + 48 * 4 + GAP, : 5 * (48 * 4 + GAP)]
    shown = tiles(row, 2 + len(names), (48, 48), 4)
    assert np.array_equal(shown[0], split.read(0)[0])
    predicted = read_predictions(one, read_maps)[0]
    white = (shown[4] == 255).all(-1)
    assert np.array_equal(shown[4][~white], scenes.PALETTE[predicted[~white]])
    assert (predicted != split.read(0)[1])[white].all()


def test_equal_results_give_equal_bytes_without_torch(project):
    path = table_panels(*load(), "all-labels")
    before = path.read_bytes()
    program = (
        "import sys; from bcd.config.load import load_params; from bcd.config.suites import load_suite;"
        "from bcd.report.panels import table_panels;"
        "table_panels(load_params(), load_suite('smoke'), 'all-labels');"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert path.read_bytes() == before


def test_a_student_of_fewer_labels_is_shown_beside_the_teacher_of_all(project):
    canvas = np.asarray(Image.open(table_panels(*load(), "few-labels")))
    assert canvas.shape[1] == 5 * (48 * 4 + GAP)


def test_without_chosen_methods_none_and_bcd_are_shown_as_far_as_the_table_has_them(project):
    chosen = table_panels(*load(), "all-labels").read_bytes()
    assert table_panels(*changed_suite(panels=Panels(images=2)), "all-labels").read_bytes() == chosen
    fewer = changed_suite(panels=Panels(images=2), methods=["none", "kd"])
    canvas = np.asarray(Image.open(table_panels(*fewer, "all-labels")))
    assert canvas.shape[1] == 4 * (48 * 4 + GAP)


def test_the_panel_of_a_run_has_three_columns(project):
    one = student("kd")
    data = run_panel(one, DATA, images=2)
    canvas = np.asarray(Image.open(BytesIO(data)))
    assert canvas.shape[1] == 3 * (48 * 4 + GAP)
    assert data == run_panel(one, DATA, images=2) != run_panel(one, DATA, images=3)


def test_a_missing_method_run_or_prediction_is_named(project):
    params, suite = load()
    with pytest.raises(ValidationError, match="panels.methods: 'bcb' is no method of table 'all-labels'"):
        Table.model_validate(suite.tables[0].model_dump() | {"panels": {"methods": ["none", "bcb"]}})
    one = student("bcd")
    one.predictions_file.unlink()
    with pytest.raises(UserError, match=f"{one.predictions_file} cannot be read"):
        table_panels(params, suite, "all-labels")
    one.predictions_file.write_bytes(b"PK damaged")
    with pytest.raises(UserError, match=f"{one.predictions_file} has changed since .*; run `bcd evaluate"):
        table_panels(params, suite, "all-labels")
    one.file.unlink()
    with pytest.raises(UserError, match="runs are missing: .*/bcd/s0; run `snakemake"):
        table_panels(params, suite, "all-labels")


def test_changed_images_are_refused(project):
    label = DATA / "scenes-smoke/labels/test/00000.png"
    label.write_bytes(label.read_bytes() + b" ")
    with pytest.raises(UserError, match="differs from what files.csv records"):
        table_panels(*load(), "all-labels")
