import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from support.suite_results import finished_fixture, load, project_fixture  # noqa: F401

from bcd import metrics
from bcd.config.schema import Panels
from bcd.data.formats import camvid, scenes
from bcd.data.semantic.split import open_split
from bcd.errors import UserError
from bcd.report import panels
from bcd.runs.expand import suite_runs
from bcd.runs.status import read_runs

RESULTS, DATA = Path("results"), Path("data")
PALETTE = np.array([(10, 20, 30), (200, 0, 0), (0, 200, 0)], np.uint8)
SIZE = (13, 17)
FACTOR = 12  # enlarges 17 columns to 192 pixels or more
LABELS = arrays.arrays(np.uint8, SIZE, elements=st.sampled_from([0, 1, 2, 255]))
PREDICTIONS = arrays.arrays(np.uint8, SIZE, elements=st.integers(0, 2))


def tiles(canvas, count, shape=SIZE, factor=FACTOR):
    """The pictures of a row, at their own size."""
    height, width = shape[0] * factor, shape[1] * factor + panels.GAP
    assert canvas.shape == (height + panels.GAP, count * width, 3)
    return [canvas[:height:factor, i * width : (i + 1) * width - panels.GAP : factor] for i in range(count)]


def student(method="bcd", repetition=0):
    params, suite = load()
    runs = suite_runs(params, suite)
    run = runs[f"semantic/scenes-smoke/smoke-student-from-smoke-teacher/{method}/s{repetition}"]
    return read_runs("smoke", [run], RESULTS, DATA)[run.key]


# --- one row -----------------------------------------------------------------------------------------------


@given(LABELS, PREDICTIONS)
def test_a_row_shows_image_label_and_prediction_with_wrong_band_pixels_white(label, predicted):
    image = np.arange(label.size * 3, dtype=np.uint8).reshape(*label.shape, 3)
    shown = tiles(panels.panel(image, label, {"a": predicted}, PALETTE), 3)
    assert np.array_equal(shown[0], image)
    valid = label != 255
    assert np.array_equal(shown[1][valid], PALETTE[label[valid]]) and not shown[1][~valid].any()
    white = (shown[2] == 255).all(-1)
    right = valid & (predicted == label)
    assert not white[right | ~valid].any()
    assert np.array_equal(shown[2][right], PALETTE[label[right]]) and not shown[2][~valid].any()
    # A pixel is in the label's band when one of its 8 neighbours is of another class or outside (band of one pixel).
    padded = np.pad(label.astype(int), 1, constant_values=-1)
    around = [padded[y : y + SIZE[0], x : x + SIZE[1]] for y in range(3) for x in range(3)]
    band = np.any([(near != label) & (near != 255) for near in around], 0)
    assert np.array_equal(white, band & valid & (predicted != label))


def test_white_pixels_are_those_that_boundary_iou_looks_at():
    label = np.zeros((100, 100), np.uint8)
    label[:, 50:] = 1
    shown = tiles(panels.panel(np.zeros((100, 100, 3), np.uint8), label, {"a": 1 - label}, PALETTE), 3, (100, 100), 2)
    bands = [metrics.boundary(label == c, 3) for c in (0, 1)]  # 2 % of the diagonal of 141 pixels
    assert np.array_equal((shown[2] == 255).all(-1), bands[0] | bands[1])


def test_large_images_keep_their_size():
    label = np.zeros((200, 300), np.uint8)
    canvas = panels.panel(np.zeros((200, 300, 3), np.uint8), label, {"a": label, "b": label}, PALETTE)
    assert canvas.shape == (200 + panels.GAP, 4 * (300 + panels.GAP), 3)


def test_classes_have_distinct_colours_that_are_neither_black_nor_white():
    assert np.array_equal(panels.palette_of("scenes", scenes.CLASSES), scenes.PALETTE)
    assert np.array_equal(panels.palette_of("scenes", ["person", "tree"]), scenes.PALETTE[[7, 3]])
    for name, classes in (("scenes", scenes.CLASSES), ("camvid", range(len(camvid.PALETTE))), ("camvid", range(200))):
        colours = set(map(tuple, panels.palette_of(name, classes).tolist()))
        assert len(colours) == len(classes) and not colours & {panels.IGNORED_COLOUR, panels.ERROR_COLOUR}


# --- files -------------------------------------------------------------------------------------------------


def test_the_panel_of_a_table_shows_the_predictions_of_repetition_0(project):
    path = panels.table_panels(*load(), "all-labels")
    assert path == Path("results/smoke/figures/all-labels-panels.png")
    canvas = np.asarray(Image.open(path))
    one = student("bcd")
    split = open_split(DATA / "scenes-smoke", one.run.config["data"], "test")
    names = ("teacher", "none", "bcd")
    row = canvas[panels.HEADER : panels.HEADER + 48 * 4 + panels.GAP, : 5 * (48 * 4 + panels.GAP)]
    shown = tiles(row, 2 + len(names), (48, 48), 4)
    assert np.array_equal(shown[0], split.read(0)[0])
    predicted = panels.read_predictions(one)[0]
    white = (shown[4] == 255).all(-1)
    assert np.array_equal(shown[4][~white], scenes.PALETTE[predicted[~white]])
    assert (predicted != split.read(0)[1])[white].all()


def test_equal_results_give_equal_bytes_without_torch(project):
    path = panels.table_panels(*load(), "all-labels")
    before = path.read_bytes()
    program = (
        "import sys; from bcd import config, panels;"
        "panels.table_panels(config.load_params(), config.load_suite('smoke'), 'all-labels');"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert path.read_bytes() == before


def test_a_student_of_fewer_labels_is_shown_beside_the_teacher_of_all(project):
    canvas = np.asarray(Image.open(panels.table_panels(*load(), "few-labels")))
    assert canvas.shape[1] == 5 * (48 * 4 + panels.GAP)


def test_the_panel_of_a_run_has_three_columns(project):
    one = student("kd")
    data = panels.run_panel(one, DATA, images=2)
    canvas = np.asarray(Image.open(BytesIO(data)))
    assert canvas.shape[1] == 3 * (48 * 4 + panels.GAP)
    assert data == panels.run_panel(one, DATA, images=2) != panels.run_panel(one, DATA, images=3)


def test_a_missing_method_run_or_prediction_is_named(project):
    params, suite = load()
    table = suite.tables[0]
    wrong = suite.model_copy(update={"tables": [table.model_copy(update={"panels": Panels(methods=["none", "bcb"])})]})
    with pytest.raises(UserError, match="panels.methods: 'bcb' is no method of table 'all-labels'; choose from"):
        panels.table_panels(params, wrong, "all-labels")
    one = student("bcd")
    one.predictions_file.unlink()
    with pytest.raises(UserError, match=f"{one.predictions_file} cannot be read"):
        panels.table_panels(params, suite, "all-labels")
    one.predictions_file.write_bytes(b"PK damaged")
    with pytest.raises(UserError, match=f"{one.predictions_file} cannot be read"):
        panels.table_panels(params, suite, "all-labels")
    one.file.unlink()
    with pytest.raises(UserError, match="runs are missing: .*/bcd/s0; run `snakemake"):
        panels.table_panels(params, suite, "all-labels")


def test_changed_images_are_refused(project):
    label = DATA / "scenes-smoke/labels/test/00000.png"
    label.write_bytes(label.read_bytes() + b" ")
    with pytest.raises(UserError, match="differs from what files.csv records"):
        panels.table_panels(*load(), "all-labels")
