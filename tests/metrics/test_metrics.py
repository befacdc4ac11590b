import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bcd import metrics
from bcd.errors import UserError
from bcd.metrics.boundary import band_width, class_band

CLASSES = 4
SIZE = (13, 17)
OPTIONS = metrics.MetricOptions(trimap=(1, 3), bf=(1, 3), min_region=1)
PREDICTIONS = arrays.arrays(np.uint8, SIZE, elements=st.integers(0, CLASSES - 1))
LABELS = arrays.arrays(np.uint8, SIZE, elements=st.sampled_from([0, 1, 2, 3, 255]))


def count(pred, label, *, classes=2, **options):
    counts = metrics.image_counts(
        np.asarray(pred, np.uint8),
        np.asarray(label, np.uint8),
        classes=classes,
        options=metrics.MetricOptions(**{"min_region": 1, **options}),
    )
    return metrics.stack([counts])


def scenes(images, *, noise=0.1, size=(24, 32), seed=0):
    """Rows of images of random ellipses, predicted with some wrong pixels."""
    draw = np.random.default_rng(seed)
    counts = []
    for _ in range(images):
        label = np.zeros(size, np.uint8)
        for c in (1, 2, 3):
            centre = int(draw.integers(size[1])), int(draw.integers(size[0]))
            cv2.ellipse(label, centre, (int(draw.integers(3, 9)), 4), int(draw.integers(180)), 0, 360, c, -1)
        label[:2] = 255
        wrong = draw.random(size) < noise
        pred = np.where(wrong, draw.integers(0, CLASSES, size), label % CLASSES).astype(np.uint8)
        counts.append(metrics.image_counts(pred, label, classes=CLASSES, options=OPTIONS))
    return metrics.stack(counts)


# --- all metrics -------------------------------------------------------------------------------------------


def test_names_types_and_order():
    rows = count(np.zeros(SIZE), np.zeros(SIZE), classes=CLASSES)
    assert list(metrics.summarise(rows)) == [
        "miou", "macc", "aacc", "biou", "trimap1", "trimap3", "trimap5", "bf3", "conn", "frag",
    ]  # fmt: skip
    for name, values in rows.items():
        assert values.shape == (1, CLASSES)
        assert values.dtype == (np.float64 if name in ("bf3.num", "conn.num") else np.int64), name


def test_a_perfect_prediction_scores_100_in_one_piece():
    rows = scenes(3, noise=0)
    ideal = metrics.summarise(rows)
    assert ideal.pop("frag") == 1
    assert ideal == dict.fromkeys(ideal, 100.0)


@given(PREDICTIONS, PREDICTIONS, LABELS)
@settings(max_examples=50, deadline=None)
def test_predictions_on_ignored_pixels_change_nothing(pred, other, label):
    changed = np.where(label == 255, other, pred)
    one, two = (metrics.image_counts(p, label, classes=CLASSES, options=OPTIONS) for p in (pred, changed))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@given(PREDICTIONS, LABELS)
@settings(max_examples=50, deadline=None)
def test_numerators_stay_within_denominators(pred, label):
    counts = metrics.image_counts(pred, label, classes=CLASSES, options=OPTIONS)
    for name, num in counts.items():
        metric, _, part = name.rpartition(".")
        if part == "num" and metric != "frag":
            assert np.all(num >= 0) and np.all(num <= counts[f"{metric}.den"] + 1e-12), metric
    assert np.all(counts["frag.num"] >= counts["frag.den"])
    assert np.all(counts["frag.den"] <= counts["conn.den"])


def test_an_image_without_labels_counts_nothing():
    rows = count(np.zeros(SIZE), np.full(SIZE, 255))
    assert not any(values.any() for values in rows.values())
    assert all(np.isnan(value) for value in metrics.summarise(rows).values())


def test_impossible_input_is_refused():
    good = np.zeros(SIZE, np.uint8)
    with pytest.raises(UserError, match="class id 7.*4 classes"):
        metrics.image_counts(good, good + np.uint8(7), classes=CLASSES)
    with pytest.raises(ValueError, match="pred holds class id 9"):
        metrics.image_counts(good + np.uint8(9), good, classes=CLASSES)
    with pytest.raises(ValueError, match="one size"):
        metrics.image_counts(good[1:], good, classes=CLASSES)
    with pytest.raises(ValueError, match="uint8"):
        metrics.image_counts(good.astype(np.int64), good, classes=CLASSES)
    for options in ({"trimap": (0,)}, {"bf": (-1,)}, {"min_region": 0}, {"boundary_ratio": 0.0}):
        with pytest.raises(UserError, match=next(iter(options))):
            metrics.MetricOptions(**options)


# --- mIoU --------------------------------------------------------------------------------------------------


def test_miou_by_hand():
    pred = [[0, 0, 1, 1], [0, 0, 1, 2]]
    label = [[0, 0, 0, 1], [0, 0, 1, 255]]
    rows = count(pred, label, classes=4)
    values = metrics.summarise(rows)
    np.testing.assert_allclose(metrics.per_class(rows, "miou"), [80, 200 / 3, np.nan, np.nan])
    assert values["miou"] == pytest.approx((80 + 200 / 3) / 2)
    assert values["macc"] == pytest.approx((80 + 100) / 2)
    assert values["aacc"] == pytest.approx(600 / 7)


def test_one_class_is_enough():
    values = metrics.summarise(count(np.zeros(SIZE), np.zeros(SIZE), classes=1))
    assert {values[name] for name in ("miou", "macc", "aacc", "biou", "conn")} == {100} and values["frag"] == 1


def test_a_class_only_predicted_has_iou_zero_and_no_accuracy():
    values = metrics.summarise(count([[0, 0, 1, 1]], [[0, 0, 0, 0]]))
    assert values["miou"] == 25 and values["macc"] == 50


# --- boundaries --------------------------------------------------------------------------------------------


def test_band_width_rounds_halves_to_even():
    assert band_width((3, 4), 0.5) == 2 and band_width((3, 4), 0.7) == 4 and band_width((3, 4), 0.001) == 1


@given(LABELS, st.integers(1, 4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_class_band_by_brute_force(label, d, frame):
    valid = label != 255
    band = class_band(label, valid, d, frame=frame)
    for y, x in np.argwhere(valid):
        window = np.s_[max(y - d, 0) : y + d + 1, max(x - d, 0) : x + d + 1]
        outside = min(y, x, SIZE[0] - 1 - y, SIZE[1] - 1 - x) < d
        expected = np.any(valid[window] & (label[window] != label[y, x])) or (frame and outside)
        assert band[y, x] == expected


@given(PREDICTIONS, PREDICTIONS)
@settings(max_examples=40, deadline=None)
def test_biou_sums_the_masks_of_cheng_et_al(pred, label):
    rows = count(pred, label, classes=CLASSES, boundary_ratio=0.1)
    d = band_width(SIZE, 0.1)
    for c in range(CLASSES):
        gt, guess = metrics.boundary(label == c, d), metrics.boundary(pred == c, d)
        assert rows["biou.num"][0, c] == np.count_nonzero(gt & guess)
        assert rows["biou.den"][0, c] == np.count_nonzero(gt | guess)
        union = np.count_nonzero(gt | guess)
        iou = np.count_nonzero(gt & guess) / union if union else np.nan
        np.testing.assert_equal(metrics.boundary_iou(label == c, pred == c, 0.1), iou)


def test_ignored_pixels_make_no_boundary():
    label = np.zeros((20, 20), np.uint8)
    label[8:12, 8:12] = 255
    rows = count(np.zeros_like(label), label, boundary_ratio=0.04)
    assert rows["biou.den"].tolist() == [[20 * 20 - 18 * 18, 0]]
    assert rows["trimap5.den"].tolist() == [[0, 0]]


def test_trimap_counts_w_pixels_on_each_side_of_the_edge():
    label = np.zeros((10, 20), np.uint8)
    label[:, 10:] = 1
    pred = np.zeros_like(label)
    pred[:, 12:] = 1
    rows = count(pred, label)
    # Of the columns 10 - w .. 10 + w - 1, columns 10 and 11 are wrong.
    for width, inter, union in ((1, [10, 0], [20, 10]), (3, [30, 10], [50, 30]), (5, [50, 30], [70, 50])):
        assert rows[f"trimap{width}.num"].tolist() == [inter]
        assert rows[f"trimap{width}.den"].tolist() == [union]


def test_boundary_f_forgives_shifts_up_to_its_radius():
    gt, near, far = (np.zeros((40, 40), np.uint8) for _ in range(3))
    gt[10:20, 10:20] = near[10:20, 13:23] = far[10:20, 14:24] = 1
    assert metrics.boundary_f(gt, near, 3) == 1
    assert 0 < metrics.boundary_f(gt, far, 3) < 1
    assert metrics.boundary_f(gt, np.zeros_like(gt), 3) == 0
    assert metrics.boundary_f(np.zeros_like(gt), np.zeros_like(gt), 3) == 1


@given(PREDICTIONS, LABELS)
@settings(max_examples=50, deadline=None)
def test_bf_is_boundary_f_of_each_present_class(pred, label):
    valid = label != 255
    counts = metrics.image_counts(pred, label, classes=CLASSES, options=OPTIONS)
    for c in range(CLASSES):
        gt, guess = (label == c) & valid, (pred == c) & valid
        present = bool(gt.any() or guess.any())
        for radius in (1, 3):
            assert counts[f"bf{radius}.den"][c] == present
            assert counts[f"bf{radius}.num"][c] == (metrics.boundary_f(gt, guess, radius) if present else 0)


# --- regions -----------------------------------------------------------------------------------------------


def conn_frag(pred, label, **options):
    """conn and frag of class 1 alone."""
    rows = count(pred, label, **options)
    conn = 100 * rows["conn.num"][0, 1] / rows["conn.den"][0, 1]
    return conn, rows["frag.num"][0, 1] / max(rows["frag.den"][0, 1], 1)


def bar(length=21, thickness=3):
    label = np.zeros((thickness + 4, length + 4), np.uint8)
    label[2:-2, 2:-2] = 1
    return label


def test_a_broken_region_is_worse_than_one_shrunk_by_the_same_area():
    label = bar(21, 3)
    shrunk, broken = label.copy(), label.copy()
    shrunk[:, 2:5] = 0
    broken[:, 11:14] = 0
    assert np.count_nonzero(shrunk) == np.count_nonzero(broken) == 54
    assert count(shrunk, label)["miou.num"][0, 1] == count(broken, label)["miou.num"][0, 1]
    assert conn_frag(shrunk, label) == (pytest.approx(100 * 54 / 63), 1)
    assert conn_frag(broken, label) == (pytest.approx(100 * 27 / 63), 2)


@given(st.integers(1, 19))
@settings(max_examples=19, deadline=None)
def test_any_cut_is_worse_than_the_same_loss_at_the_end(column):
    label = bar(21, 3)
    shrunk, broken = label.copy(), label.copy()
    shrunk[:, 2] = 0
    broken[:, 2 + column] = 0
    assert conn_frag(broken, label)[0] < conn_frag(shrunk, label)[0]
    assert conn_frag(broken, label)[1] == 2


def test_a_wire_with_a_gap_of_one_pixel_drops_to_half():
    label = bar(21, 1)
    pred = label.copy()
    pred[2, 12] = 0
    assert conn_frag(pred, label) == (pytest.approx(100 * 10 / 21), 2)


def test_diagonal_neighbours_are_connected():
    wire = np.eye(12, dtype=np.uint8)
    assert conn_frag(wire, wire) == (100, 1)


def test_pieces_that_meet_only_outside_the_region_stay_apart():
    label = bar(9, 1)
    pred = label.copy()
    pred[2, 6] = 0
    pred[1, 5:8] = 1
    pred[0, 5:8] = 1
    assert conn_frag(pred, label) == (pytest.approx(100 * 4 / 9), 2)


def test_ignored_pixels_split_a_region_but_break_no_piece():
    label = bar(21, 1)
    label[2, 12] = 255
    rows = count(np.where(label == 255, 0, label), label)
    assert rows["conn.den"].tolist()[0][1] == 2 and rows["conn.num"].tolist()[0][1] == 2
    assert rows["frag.num"].tolist()[0][1] == rows["frag.den"].tolist()[0][1] == 2


def test_missed_regions_lower_conn_and_leave_frag():
    label = np.zeros((12, 12), np.uint8)
    label[1:4, 1:4] = label[7:10, 7:10] = 1
    pred = label.copy()
    pred[7:10, 7:10] = 0
    assert conn_frag(pred, label) == (50, 1)


def test_small_regions_do_not_count():
    label = np.zeros((12, 12), np.uint8)
    label[1:4, 1:4] = 1
    label[8, 8] = 1
    pred = label.copy()
    pred[8, 8] = 0
    assert conn_frag(pred, label, min_region=1)[0] == 50
    assert conn_frag(pred, label, min_region=2)[0] == 100
    assert not count(pred, label, min_region=10)["conn.den"][0, 1]


# --- rows --------------------------------------------------------------------------------------------------


def test_weights_are_multiplicities():
    rows = scenes(4)
    weights = np.array([[1, 1, 1, 1], [0, 2, 1, 1], [4, 0, 0, 0]])
    weighted = metrics.summarise(rows, weights)
    for b, times in enumerate(weights):
        repeated = {name: np.repeat(values, times, axis=0) for name, values in rows.items()}
        for metric, value in metrics.summarise(repeated).items():
            assert isinstance(value, float)
            assert weighted[metric][b] == pytest.approx(value, abs=1e-9), metric
    assert all(values.shape == (3,) for values in weighted.values())


def test_a_class_absent_from_a_replicate_is_skipped_there():
    one = metrics.image_counts(*np.zeros((2, 4, 4), np.uint8), classes=2)
    label = np.ones((4, 4), np.uint8)
    label[0] = 0
    rows = metrics.stack([one, metrics.image_counts(np.zeros_like(label), label, classes=2)])
    np.testing.assert_allclose(metrics.summarise(rows, np.array([[1, 0], [0, 1]]))["miou"], [100, 12.5])


def test_stack_refuses_nothing_and_mixtures():
    with pytest.raises(ValueError, match="no image"):
        metrics.stack([])
    with pytest.raises(ValueError, match="options"):
        metrics.stack([{"a": np.zeros(2)}, {"b": np.zeros(2)}])


def test_rows_survive_the_disk_and_equal_rows_are_equal_bytes(tmp_path):
    rows, names = scenes(3), ["a.png", "b.png", "ç.png"]
    metrics.save_rows(tmp_path / "one.npz", rows, names)
    metrics.save_rows(tmp_path / "two.npz", rows, names)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert {entry.date_time for entry in zipfile.ZipFile(tmp_path / "one.npz").infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "two.npz"]
    loaded, loaded_names = metrics.load_rows(tmp_path / "one.npz")
    assert loaded_names == names and list(loaded) == list(rows)
    for name, values in rows.items():
        np.testing.assert_array_equal(loaded[name], values)
        assert loaded[name].dtype == values.dtype


def test_unreadable_rows_name_the_file(tmp_path):
    path = tmp_path / "rows.npz"
    with pytest.raises(UserError, match="rows.npz"):
        metrics.load_rows(path)
    metrics.save_rows(path, scenes(2), ["a", "b"])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="rows.npz"):
        metrics.load_rows(path)
    with pytest.raises(ValueError, match="3 names"):
        metrics.save_rows(path, scenes(2), ["a", "b", "c"])
