"""A row of label maps: colours, and what is marked as wrong."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.picture_rows import tiles

from bcd import metrics
from bcd.report.panels import layout
from bcd.report.panels.semantic import map_row

PALETTE = np.array([(10, 20, 30), (200, 0, 0), (0, 200, 0)], np.uint8)
SIZE = (13, 17)
FACTOR = 12  # enlarges 17 columns to 192 pixels or more
LABELS = arrays.arrays(np.uint8, SIZE, elements=st.sampled_from([0, 1, 2, 255]))
PREDICTIONS = arrays.arrays(np.uint8, SIZE, elements=st.integers(0, 2))


@given(LABELS, PREDICTIONS)
def test_a_row_shows_image_label_and_prediction_with_wrong_band_pixels_white(label, predicted):
    image = np.arange(label.size * 3, dtype=np.uint8).reshape(*label.shape, 3)
    shown = tiles(map_row(image, label, {"a": predicted}, PALETTE), 3, SIZE, FACTOR)
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
    shown = tiles(map_row(np.zeros((100, 100, 3), np.uint8), label, {"a": 1 - label}, PALETTE), 3, (100, 100), 2)
    bands = [metrics.boundary(label == c, 3) for c in (0, 1)]  # 2 % of the diagonal of 141 pixels
    assert np.array_equal((shown[2] == 255).all(-1), bands[0] | bands[1])


def test_large_images_keep_their_size():
    label = np.zeros((200, 300), np.uint8)
    canvas = map_row(np.zeros((200, 300, 3), np.uint8), label, {"a": label, "b": label}, PALETTE)
    assert canvas.shape == (200 + layout.GAP, 4 * (300 + layout.GAP), 3)
