"""Pictures of detected objects: colours, boxes, and what is marked as wrong."""

import numpy as np
from support.suite_results import load

from bcd.report.panels import table_panels
from bcd.report.panels.objects import NOTHING, Drawn, _class_map, object_tiles, shown

PALETTE = np.array([(200, 0, 0), (0, 200, 0)], np.uint8)


def square(left: int, top: int, right: int, bottom: int, side: int = 40) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def drawn(*objects: tuple[int, tuple[int, int, int, int]], masks: bool = True) -> Drawn:
    boxes = np.array([box for _, box in objects], float).reshape(-1, 4)
    classes = np.array([kind for kind, _ in objects], int)
    areas = np.stack([square(*box) for _, box in objects]) if masks and objects else None
    return Drawn(boxes, classes, areas)


def tile(truth: Drawn, found: Drawn) -> np.ndarray:
    image = np.zeros((40, 40, 3), np.uint8)
    return object_tiles(image, truth, {"found": found}, PALETTE, 1)[1]


def white(picture: np.ndarray) -> np.ndarray:
    return (picture == 255).all(-1)


def test_a_perfect_prediction_has_no_white_pixel():
    truth = drawn((0, (10, 10, 30, 30)), (1, (2, 2, 8, 8)))
    assert not white(tile(truth, truth)).any()


def test_wrong_pixels_of_masks_are_marked_within_the_band_only():
    truth = drawn((0, (10, 10, 30, 30)))
    grown = Drawn(truth.boxes, truth.classes, np.stack([square(10, 10, 38, 30)]))
    marked = white(tile(truth, grown))
    assert marked[12:28, 30].all() and not marked[:, 33:].any() and not marked[15:25, 15:25].any()


def test_a_box_without_an_object_of_its_class_is_drawn_in_white():
    truth = drawn((0, (10, 10, 30, 30)), masks=False)
    for found, is_white in (((0, (10, 10, 30, 29)), False), ((1, (10, 10, 30, 30)), True), ((0, (0, 0, 9, 9)), True)):
        assert white(tile(truth, drawn(found, masks=False))).any() == is_white


def test_only_confident_detections_are_shown_the_best_on_top():
    arrays = {
        "boxes": np.array([[0, 0, 9, 9], [1, 1, 5, 5], [2, 2, 6, 6]], float),
        "scores": np.array([0.9, 0.3, 0.6]),
        "classes": np.array([0, 1, 1]),
        "masks": np.stack([square(0, 0, 9, 9), square(1, 1, 5, 5), square(2, 2, 6, 6)]),
    }
    found = shown(arrays)
    assert found.classes.tolist() == [1, 0] and len(found.masks) == 2
    assert set(np.unique(_class_map(found, (40, 40)))) == {0, NOTHING}


def test_images_without_objects_have_panels():
    nothing = drawn()
    assert not white(tile(nothing, nothing)).any()


def test_a_table_of_detectors_has_panels(project):
    for table in ("detection", "instance"):
        path = table_panels(*load(), table)
        first = path.read_bytes()
        assert first[:4] == b"\x89PNG" and table_panels(*load(), table).read_bytes() == first
