"""MATLAB label maps and tables of classes; images and masks: tests/data/formats/test_camvid.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dataset_layouts import mat, spread

from bcd.data import decode
from bcd.errors import UserError

WHOLE = mat(S=spread(0, 7, 300), nested={"inner": spread(1).astype(np.uint8)})


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.uint64, np.float64])
def test_whole_numbers_of_any_kind(kind):
    label = decode.read_mat(mat(S=spread(0, 7, 200).astype(kind)), "m.mat", "S")
    assert label.dtype == np.int64
    np.testing.assert_array_equal(label, spread(0, 7, 200))


def test_field_of_a_struct():
    np.testing.assert_array_equal(decode.read_mat(WHOLE, "m.mat", "nested", "inner"), spread(1))


@pytest.mark.parametrize("path", [("T",), ("S", "inner"), ("nested", "outer")])
def test_what_is_not_there(path):
    with pytest.raises(UserError, match=rf"m\.mat has no readable label map {'.'.join(path)}"):
        decode.read_mat(WHOLE, "m.mat", *path)


@pytest.mark.parametrize("value", [np.full((2, 2), 0.5), np.full((2, 2), np.nan), "text", np.zeros((2, 2, 2))])
def test_what_is_no_label_map(value):
    with pytest.raises(UserError, match=r"m\.mat: S is not a map of whole numbers"):
        decode.read_mat(mat(S=value), "m.mat", "S")


@settings(max_examples=100, deadline=None)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_an_error(fraction):
    with pytest.raises(UserError, match="no readable label map"):
        decode.read_mat(mat(S=spread(0, 7))[: int(fraction * len(mat(S=spread(0, 7))))], "m.mat", "S")


@settings(max_examples=200, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_file_is_an_error_or_does_no_harm(where, flip):
    data = bytearray(WHOLE)
    data[int(where * len(data))] ^= flip
    try:
        decode.read_mat(bytes(data), "m.mat", "S")
    except UserError as error:
        assert "m.mat" in str(error)


def test_look_up():
    table = decode.label_table({0: 255, 2: 0, 5: 1})
    label = np.array([[0, 2], [5, 5]])
    classes = decode.look_up(label, table, "m")
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, [[255, 0], [1, 1]])
    assert decode.look_up(np.empty((0, 3), np.uint8), table, "m").shape == (0, 3)
    for wrong in (1, 6, 1000, -1):
        with pytest.raises(UserError, match=f"mask m holds the value {wrong}, which has no class"):
            decode.look_up(np.array([[0, wrong]]), table, "m")
