"""Compressed masks, many at once, against pycocotools."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as codes

from bcd.data.objects import masks


@given(st.lists(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)), max_size=5))
@settings(max_examples=100, deadline=None)
def test_masks_inside_their_boxes(drawn):
    """Also those that are empty, full, or go on from one column to the next."""
    packed = [codes.encode(np.asfortranarray(inside, np.uint8)) for inside in drawn]
    boxes = masks.boxes(packed)
    np.testing.assert_array_equal(masks.areas(packed), [inside.sum() for inside in drawn])
    for inside, (x, y, width, height), found in zip(drawn, boxes.astype(int), masks.within(packed, boxes), strict=True):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found.T, inside[y : y + height, x : x + width])
        assert found.sum() == inside.sum()


def test_numbers_of_many_characters():
    """Runs of up to two million pixels, and negative differences."""
    inside = np.zeros((2000, 1500), np.uint8, order="F")
    inside[5:1900, 700:720] = inside[3, 9] = inside[1999, 1499] = 1
    packed = [codes.encode(inside), codes.encode(np.ones((3, 2), np.uint8, order="F"))]
    large, small = masks.within(packed, masks.boxes(packed))
    assert small.shape == (2, 3) and small.all()
    np.testing.assert_array_equal(large.T, inside[3:, 9:])


def test_more_masks_than_pycocotools_takes_at_a_time():
    packed = [codes.encode(np.ones((1, n), np.uint8, order="F")) for n in range(1, 601)]
    np.testing.assert_array_equal(masks.areas(packed), np.arange(1, 601))
