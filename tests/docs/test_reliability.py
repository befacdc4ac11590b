"""The matrix of docs/reliability.md names tests that exist."""

import re

from support.project import ROOT

ROWS = re.findall(r"\| `tests/([\w/]+\.py)` `(test_\w+)` \|$", (ROOT / "docs/reliability.md").read_text(), re.MULTILINE)


def test_every_row_names_a_test_that_exists():
    lines = [line for line in (ROOT / "docs/reliability.md").read_text().splitlines() if line.startswith("| ")]
    assert len(ROWS) == len([line for line in lines if not line.startswith("| fault |")])
    missing = [f"{file}::{test}" for file, test in ROWS if not defines(file, test)]
    assert not missing


def defines(file: str, test: str) -> bool:
    path = ROOT / "tests" / file
    return path.exists() and re.search(rf"^def {test}\(", path.read_text(), re.MULTILINE) is not None
