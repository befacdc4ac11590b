"""The pictures of the viewer are those of the panels, as small files in the page."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import tables
from support.suite_results import load

from bcd.data.palette import palette_of
from bcd.errors import UserError
from bcd.metrics import load_arrays
from bcd.report.page.images import LONGEST, Album, differences, photograph, viewer
from bcd.runs.expand import suite_runs
from bcd.runs.usable import read_runs


def shown(methods=("none", "bcd"), task="semantic/scenes-smoke/smoke-student-from-smoke-teacher"):
    runs = suite_runs(*load())
    wanted = {method: runs[f"{task}/{method}/s0"] for method in methods}
    statuses = read_runs("smoke", wanted.values(), tables.RESULTS, tables.DATA)
    return {method: statuses[run.key] for method, run in wanted.items()}


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))


def test_a_prediction_is_its_map_in_the_colours_of_the_classes(project):
    album, statuses = Album(), shown()
    found = viewer(statuses, tables.DATA, album)
    use = statuses["bcd"].run.training.data
    ids = load_arrays(statuses["bcd"].predictions_file)["2"]
    picture = pixels(album.pictures[found["images"][2]["seen"]["bcd"][0]])
    assert (picture[..., :3] == palette_of(use)[ids]).all()


def test_boundary_errors_are_white_and_the_rest_of_them_is_clear(project):
    album = Album()
    image = viewer(shown(), tables.DATA, album)["images"][0]
    label, seen, errors = (pixels(album.pictures[name]) for name in (image["label"], *image["seen"]["none"]))
    marked = errors[..., 3] > 0
    assert marked.any() and (errors[marked] == 255).all()
    assert (seen[marked] != label[marked]).any(1).all(), "only what is wrong is marked"


def test_two_methods_differ_where_their_maps_do(project):
    album, statuses = Album(), shown()
    found = viewer(statuses, tables.DATA, album)
    first, second = (load_arrays(one.predictions_file)["0"] for one in statuses.values())
    assert found["images"][0]["differ"] == [[], [round(float((first != second).mean()), 4)]]


def test_differences_are_of_each_pair():
    maps = [np.array([[0, 0]], np.uint8), np.array([[0, 1]], np.uint8), np.array([[1, 1]], np.uint8)]
    assert differences(maps) == [[], [0.5], [1.0, 0.5]]
    colours = [np.zeros((1, 2, 3), np.uint8), np.array([[[0, 0, 1], [0, 0, 0]]], np.uint8)]
    assert differences(colours) == [[], [0.5]]


@pytest.mark.parametrize("task", ["detection", "instance"])
def test_objects_are_drawn_over_the_image(project, task):
    model = {"detection": "smoke-retinanet", "instance": "smoke-maskrcnn"}[task]
    album = Album()
    found = viewer(shown(task=f"{task}/scenes-smoke/{model}-from-{model}"), tables.DATA, album)
    first = found["images"][0]
    assert first["seen"]["bcd"][1] is None and not found["marks"]
    sizes = {pixels(album.pictures[name]).shape for name in (first["image"], first["label"], first["seen"]["bcd"][0])}
    assert len(sizes) == 1


def test_equal_pictures_are_kept_once(project):
    album = Album()
    once = viewer(shown(), tables.DATA, album)
    count = len(album.pictures)
    assert viewer(shown(), tables.DATA, album) == once and len(album.pictures) == count


def test_large_images_are_reduced():
    album = Album()
    name = photograph(np.zeros((480, 2 * LONGEST, 3), np.uint8), album)
    assert pixels(album.pictures[name]).shape[:2] == (240, LONGEST)


def test_changed_predictions_are_an_error_with_its_remedy(project):
    statuses = shown()
    Path(statuses["bcd"].predictions_file).write_bytes(b"other")
    with pytest.raises(UserError, match="has changed since .* run `bcd evaluate --suite smoke"):
        viewer(statuses, tables.DATA, Album())
