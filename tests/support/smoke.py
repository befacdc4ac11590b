"""Runs of the suite `smoke`, really trained, in the project that is the current directory."""

from dataclasses import replace
from pathlib import Path

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.runs import expand
from bcd.runs.jsonfile import read_as
from bcd.runs.record import RunResult
from bcd.runs.resolve import overridden
from bcd.runs.run import Run
from bcd.train import job

PAIR = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"
FEW = "semantic/scenes-smoke-few/smoke-student-from-smoke-teacher"
TEACHER = "semantic/scenes-smoke/smoke-teacher/none/s0"


def say(_text: str) -> None:
    """The loop's progress lines are not under test."""


def runs(**changes: object) -> dict[str, Run]:
    """The runs of the suite `smoke`, with overrides such as `recipe__steps` applied to all students."""
    found = expand.suite_runs(load_params(), load_suite("smoke"))
    if not changes:
        return found
    settings = {path.replace("__", "."): value for path, value in changes.items()}
    return {key: renamed(overridden(run, settings), key) if run.teacher else run for key, run in found.items()}


def renamed(run: Run, key: str) -> Run:
    return replace(run, key=key)


def result_of(run: Run) -> RunResult:
    """The small JSON of a run of the suite."""
    return read_as(RunResult, run.file("smoke"))


def train(*chosen: Run) -> dict[str, RunResult]:
    """Train one group and return the small JSON of each run by method."""
    job.run_group("smoke", list(chosen), say)
    return {run.method: result_of(run) for run in chosen}


def folder(result: RunResult) -> Path:
    """The run's place in the store."""
    return job.RESULTS / "store" / result.store


def same(a: RunResult, b: RunResult) -> bool:
    """Whether weights and evaluation are equal."""
    return (a.weights_sha256, a.evaluation) == (b.weights_sha256, b.evaluation)
