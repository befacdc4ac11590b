"""`benchmarks/gpu.sh`, where there is no card: a part in its small form, and parts that fail."""

import json
import os
import subprocess

from support.project import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.sh"
PARTS = ["kernels", "rate", "terms", "repeatable", "step", "groups", "smoke", "training"]


def summary(folder) -> dict[str, int]:
    """Part -> exit status."""
    head, *lines = (line.split() for line in (folder / "summary.txt").read_text().splitlines())
    assert head == ["part", "rc", "s"]
    return {name: int(status) for name, status, _ in lines}


def test_a_part_in_its_small_form(tmp_path):
    done = subprocess.run([SCRIPT, tmp_path, "--tiny", "kernels"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + (tmp_path / "kernels.log").read_text()
    rows = [json.loads(line) for line in (tmp_path / "kernels.jsonl").read_text().splitlines()]
    assert {row["dtype"] for row in rows} == {"torch.float32", "torch.bfloat16"}
    assert all(row["ok"] for row in rows) and {row["masked"] for row in rows} == {True, False}
    assert summary(tmp_path) == {"kernels": 0}


def test_a_part_that_fails_stops_no_other(tmp_path):
    env = os.environ | {"PYTHON": "false"}
    done = subprocess.run([SCRIPT, tmp_path / "out"], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and summary(tmp_path / "out") == dict.fromkeys(PARTS, 1)
    assert "training" in done.stdout
