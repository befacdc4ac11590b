"""The counts of all classes at once against a plain form that takes one class after the other: equal to the bit."""

import sys
from importlib import import_module

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.project import ROOT

from bcd.metrics import MetricOptions, image_counts
from bcd.metrics.regions import by_masks, by_runs

sys.path.insert(0, str(ROOT / "benchmarks"))
plain = import_module("plain_semantic")

SIZES = st.sampled_from([(1, 1), (1, 9), (9, 1), (2, 2), (5, 7), (12, 11), (23, 30)])


@st.composite
def maps(draw):
    """(pred, label, classes): noise, blobs of 2 x 2 or 3 x 3 pixels, thin diagonals, void, classes that are absent."""
    size = draw(SIZES)
    classes = draw(st.sampled_from([1, 2, 3, 9, 19, 255]))
    held = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=10, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    block = np.ones((draw(st.integers(1, 3)),) * 2, np.uint8)
    label = np.kron(rng.choice(held, size), block)[: size[0], : size[1]].astype(np.uint8)
    diagonal = np.abs(np.subtract.outer(*map(np.arange, size))) % draw(st.integers(2, 9)) == 0
    label[diagonal & draw(st.booleans())] = held[0]
    wrong = rng.random(size) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    pred = np.where(wrong, rng.integers(0, classes, size), label).astype(np.uint8)
    void = rng.random(size) < draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))
    label[void] = 255
    pred[void] = rng.integers(0, 256, size)[void]
    return pred, label, classes


def equal(one, two):
    assert list(one) == list(two)
    for name in one:
        assert one[name].dtype == two[name].dtype, name
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@given(
    maps(), st.sampled_from([(1, 3, 5), (2,), (), (4, 1, 4)]), st.sampled_from([(3,), (1, 8), ()]), st.integers(1, 4)
)
@settings(max_examples=300, deadline=None)
def test_counts_equal_the_plain_form(drawn, trimap, bf, min_region):
    pred, label, classes = drawn
    options = MetricOptions(trimap=trimap, bf=bf, min_region=min_region, boundary_ratio=0.1)
    expected = plain.image_counts(pred, label, classes, options)
    equal(image_counts(pred, label, classes=classes, options=options), expected)
    transposed = np.asfortranarray(pred), np.asfortranarray(label)
    equal(image_counts(*transposed, classes=classes, options=options), expected)


def spiral(side):
    """A wire of one pixel that winds to the middle: the longest way between two ends of a component."""
    wire = np.zeros((side, side), np.uint8)
    for i in range(0, side // 2, 2):
        wire[i, max(i - 2, 0) : side - i] = wire[side - 1 - i, i : side - i] = 1
        wire[i : side - i, side - 1 - i] = wire[i + 2 : side - i, i] = 1
    return wire


@given(maps())
@example((spiral(61), spiral(61), 2))
@example((np.eye(40, dtype=np.uint8), np.eye(40, dtype=np.uint8), 2))
@settings(max_examples=200, deadline=None)
def test_runs_and_masks_find_the_same_regions_in_the_same_order(drawn):
    pred, truth, _ = drawn
    hits = np.where(pred == truth, truth, np.uint8(255))
    kinds = np.setdiff1d(truth, [255])
    for one, two in zip(by_runs(truth, hits), by_masks(truth, hits, kinds), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("classes", [1, 19])
def test_either_way_is_taken_where_it_is_quicker(monkeypatch, classes):
    """White noise of one class goes by masks, of nineteen classes by runs."""
    noise = np.random.default_rng(0).random((40, 40)) < 0.5
    label = np.where(noise, 255, np.arange(1600).reshape(40, 40) % classes).astype(np.uint8)
    other = {1: "by_runs", 19: "by_masks"}[classes]
    monkeypatch.delattr(f"bcd.metrics.regions.{other}")
    options = MetricOptions(min_region=1)
    equal(image_counts(label, label, classes=classes), plain.image_counts(label, label, classes, MetricOptions()))
    assert image_counts(label, label, classes=classes, options=options)["conn.den"].sum()
