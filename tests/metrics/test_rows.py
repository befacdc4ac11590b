"""Evaluation rows on disk: what is damaged or of another shape is one sentence."""

import numpy as np
import pytest

from bcd.errors import UserError
from bcd.metrics import load_rows


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
