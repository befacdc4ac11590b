"""Agreement with the official implementations, on numbers produced by running them (see parity.py)."""

import pytest
import torch
from support.parity import GOLDEN, Golden, all_cases

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"golden data not found at {GOLDEN}")
every_case = pytest.mark.parametrize("case", all_cases(), ids=str)


@every_case
def test_float64(case):
    found = Golden(case.file).deviations(case.run)
    loss = found.pop("loss")
    assert loss <= case.tolerance
    assert all(value <= 10 * case.tolerance for value in found.values()), found


@every_case
def test_float32(case):
    found = Golden(case.file, torch.float32).deviations(case.run)
    assert found.pop("loss") <= max(2e-5, case.tolerance)
    assert all(value <= 1e-4 for value in found.values()), found
