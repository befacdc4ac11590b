"""docs/results: what a page copies from the reference tables is what stands there."""

import csv

import pytest
from support.project import ROOT

PAGE = (ROOT / "docs" / "results" / "chip.md").read_text()
FORMS = {"PyTorch": "", "int8": "onnx-int8"}
METRICS = {"mIoU": "miou", "Boundary IoU": "biou", "connectivity": "conn"}


def gains() -> dict[str, list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 8 and "+" in line]
    return {cells[1].strip(" `"): [cell.strip() for cell in cells[2:-1]] for cells in (x.split("|") for x in lines)}


@pytest.mark.parametrize("method", ["kd", "cwd", "bpkd", "bcd", "pbd"])
def test_gains_on_the_chip_are_those_of_the_reference(method):
    with (ROOT / "results/reference/chip/chip.csv").open(newline="") as file:
        lines = {(one["export"], one["method"], one["metric"]): one for one in csv.DictReader(file)}
    wanted = [lines[form, method, metric] for metric in METRICS.values() for form in FORMS.values()]
    assert gains()[method] == [f"{float(one['difference']):+.2f}" for one in wanted]
    assert all(one["significant"] == "true" for one in wanted), "the page says that each is marked"
