"""Pickles of arrays: what numpy writes is read in every protocol, and nothing else is."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from bcd.errors import UserError
from bcd.models.arrays import read_arrays

ARRAYS = {
    "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "big-endian": np.arange(5, dtype=">i4"),
    "empty": np.zeros((0, 3), np.float16),
    "scalar": np.array(3),
    "number": np.float64(3.5),
    "flags": np.array([True, False]),
}


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_are_read(protocol, tmp_path):
    content = {"model": OrderedDict(ARRAYS), "__author__": "Detectron2 Model Zoo"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read_arrays(tmp_path / "a.pkl")
    assert found["__author__"] == "Detectron2 Model Zoo" and found["model"].keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(found["model"][name], array) and np.shape(found["model"][name]) == np.shape(array), name


def test_numpy_1_called_its_module_otherwise(tmp_path):
    written = pickle.dumps({"a": np.arange(3)}, 2)
    assert b"numpy._core.multiarray" in written
    (tmp_path / "a.pkl").write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_arrays(tmp_path / "a.pkl")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("hidden", ["alone", "in an array", "as a key of the state"])
def test_a_pickle_with_code_is_refused_and_not_run(hidden, tmp_path):
    code = Code(tmp_path / "ran")
    content = {"alone": code, "in an array": np.array([code], object), "as a key of the state": {"model": [code]}}[
        hidden
    ]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": content}))
    with pytest.raises(UserError, match=r"a\.pkl is a pickle that asks for .*it may run code, so it is not read"):
        read_arrays(tmp_path / "a.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no readable pickle"),
        (pickle.dumps({"a": np.arange(9)})[:-9], "is no readable pickle"),
        (pickle.dumps([1, 2]), "holds no mapping"),
        (pickle.dumps({"a": np.zeros(2, [("x", "f4")])}), "asks for an array of 'V4'"),
        (b"cbuiltins\neval\n.", "asks for 'builtins.eval'"),
        (b"Pfile\n.", "asks for the outside object 'file'"),
    ],
)
def test_other_files_are_refused_in_one_sentence(content, message, tmp_path):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_arrays(tmp_path / "a.pkl")


def test_an_array_cannot_claim_more_than_it_holds(tmp_path):
    """numpy checks it, and so must what takes its place."""
    good = pickle.dumps({"a": np.arange(3, dtype=np.int8)}, 2)
    assert good.count(b"K\x03\x85") == 1  # the shape (3,)
    (tmp_path / "a.pkl").write_bytes(good.replace(b"K\x03\x85", b"K\x7f\x85"))
    with pytest.raises(UserError, match="is no readable pickle"):
        read_arrays(tmp_path / "a.pkl")
