"""Evaluation rows on disk: what is damaged or of another shape is one sentence."""

import io
import zipfile

import numpy as np
import pytest

from bcd.errors import UserError
from bcd.metrics import load_rows
from bcd.metrics.rows import load_arrays


def test_rows_of_another_shape_are_one_sentence(tmp_path):
    names = np.array(["a", "b"])
    wrong = [
        {}, {"miou.num": np.zeros((2, 3))}, {"names": names.reshape(2, 1)}, {"names": np.array([1, 2])},
        {"names": names, "miou.num": np.zeros((3, 3))}, {"names": names, "miou.num": names},
        {"names": names, "miou.num": np.zeros(())}, {"names": names, "miou.num": np.array([{}, {}])},
    ]  # fmt: skip
    path = tmp_path / "rows.npz"
    for arrays in wrong:
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=f"evaluation rows {path} cannot be read .*; evaluate the run again"):
            load_rows(path)
    np.savez_compressed(path, names=names, **{"miou.num": np.arange(600.0).reshape(2, 300)})
    good = path.read_bytes()
    for place in range(0, len(good), 9):
        path.write_bytes(good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :])
        try:
            rows, _ = load_rows(path)  # a byte that nothing depends on, such as a time
        except UserError:
            continue
        assert all(len(values) == 2 for values in rows.values())


def npz(path, shape, data=b""):
    """A file whose header states a shape that its data need not have."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + data)
    return path


def test_a_header_that_asks_for_more_than_the_file_holds_is_damage(tmp_path):
    for shape in ((10**9, 10**9), (3,), (1,)):
        with pytest.raises(ValueError, match=r"a\.npy does not have the size that it states"):
            load_arrays(npz(tmp_path / "rows.npz", shape, bytes(16)))
    assert load_arrays(npz(tmp_path / "rows.npz", (2,), bytes(16)))["a"].tolist() == [0, 0]


def test_a_memory_that_is_full_is_not_the_files_fault(tmp_path, in_child):
    import resource

    np.savez(tmp_path / "rows.npz", a=np.ones(2**24))

    def starved():
        resource.setrlimit(resource.RLIMIT_AS, (2**26 + _address_space(), -1))
        with pytest.raises(MemoryError):
            load_arrays(tmp_path / "rows.npz")

    assert in_child(starved)[1]() == 0
    assert load_arrays(tmp_path / "rows.npz")["a"].sum() == 2**24


def _address_space():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * 4096
