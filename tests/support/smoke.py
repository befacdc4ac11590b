"""Runs of the suite `smoke`, really trained, in the project that is the current directory."""

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.runs import expand, store
from bcd.runs.run import Run, overridden, run_file
from bcd.train import job

PAIR = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"
FEW = "semantic/scenes-smoke-few/smoke-student-from-smoke-teacher"
TEACHER = "semantic/scenes-smoke/smoke-teacher/none/s0"


def say(_text: str) -> None:
    """The engine's progress lines are not under test."""


def runs(**changes) -> dict[str, Run]:
    """The runs of the suite `smoke`, with overrides such as `recipe.steps` applied to all of them."""
    found = expand.suite_runs(load_params(), load_suite("smoke"))
    if not changes:
        return found
    settings = {path.replace("__", "."): value for path, value in changes.items()}
    teachers = {run.key for run in found.values() if not run.teacher}
    return {key: run if key in teachers else renamed(overridden(run, settings), key) for key, run in found.items()}


def renamed(run: Run, key: str) -> Run:
    return Run(**{**vars(run), "key": key})


def train(*chosen: Run) -> dict[str, dict]:
    """Train one group and return the small JSON of each run by method."""
    job.run_group("smoke", list(chosen), say)
    return {run.method: store.read_json(run_file("smoke", run)) for run in chosen}


def folder(edge: dict):
    return job.RESULTS / "store" / edge["store"]


def same(a: dict, b: dict) -> bool:
    return (a["weights_sha256"], a["evaluation"]) == (b["weights_sha256"], b["evaluation"])
