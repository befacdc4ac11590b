"""Two real processes under torchrun: one job, one record, the global batch of a single process."""

import sys
from pathlib import Path

import pytest
from conftest import run

from bcd import config, spec, store

TORCHRUN = str(Path(sys.executable).parent / "torchrun")
TEACHER = "semantic/scenes-smoke/smoke-teacher/none/s0"


@pytest.mark.slow
def test_two_processes_train_one_run(project):
    command = (TORCHRUN, "--standalone", "--nproc-per-node", "2", "-m", "bcd", "train", "--suite", "smoke", TEACHER)
    run(*command, cwd=project)
    teacher = spec.suite_runs(config.load_params(), config.load_suite("smoke"))[TEACHER]
    edge = store.read_json(spec.run_file("smoke", teacher))
    record = store.record(project / "results" / "store" / edge["store"])
    assert (record["world"], record["steps"]) == (2, 2)
    history = (project / "results" / "store" / edge["store"] / "history.jsonl").read_text().splitlines()
    assert len(history) == 2
