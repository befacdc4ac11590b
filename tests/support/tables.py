"""Measured tables of the finished suite `smoke` in the current directory (see `support.suite_results`)."""

import json
from pathlib import Path

from support.suite_results import finish_run, load

from bcd.report.content import Cell, MeasuredRow, TableContent
from bcd.report.measure import measure
from bcd.report.tables import find_table
from bcd.runs.expand import suite_runs
from bcd.runs.jsonfile import dump, parse_as, read_as
from bcd.runs.record import RunResult

RESULTS, DATA = Path("results"), Path("data")
STUDENT = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"


def changed_suite(table="all-labels", **update):
    """Params, and the suite with a table of which some fields have other values."""
    params, suite = load()
    tables = [one.model_copy(update=update) if one.name == table else one for one in suite.tables]
    return params, suite.model_copy(update={"tables": tables})


def content(table="all-labels", *, partial=False, **update) -> TableContent:
    """What a table says, with other values of some of its fields."""
    params, suite = changed_suite(table, **update)
    return measure(params, suite, find_table(suite, table), RESULTS, DATA, partial=partial)


def row(measured: TableContent, method: str, pair: int = 0) -> MeasuredRow:
    return measured.pairs[pair].row(method)


def cell(measured: TableContent, method: str, metric: str = "miou", pair: int = 0) -> Cell:
    return row(measured, method, pair).cells[metric]


def with_cell(measured: TableContent, method: str, metric: str, changed: Cell) -> TableContent:
    """The content with another cell in its first pair."""
    first, *others = measured.pairs
    rows = [
        one.model_copy(update={"cells": one.cells | {metric: changed}}) if one.method == method else one
        for one in first.rows
    ]
    return measured.model_copy(update={"pairs": [first.model_copy(update={"rows": rows}), *others]})


def student_file(method: str, repetition: int = 0) -> Path:
    """The small JSON of a run of the table all-labels."""
    return RESULTS / "smoke" / "runs" / STUDENT / method / f"s{repetition}.json"


def lose(*names: str) -> None:
    """Delete run files: `kd/s0`, or `teacher`."""
    for name in names:
        teacher = RESULTS / "smoke/teachers/semantic/scenes-smoke/smoke-teacher/none/s0.json"
        (teacher if name == "teacher" else RESULTS / "smoke/runs" / STUDENT / f"{name}.json").unlink()


def edit(path: Path, change) -> None:
    """Change the value of a JSON file in place, with the seal that a run file of this value has."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(dump(parse_as(RunResult, value).sealed()) if "fingerprint" in value else json.dumps(value))


def finish_clearly(root: Path) -> None:
    """Finish all students again, `bcd` clearly better and `cwd` clearly worse than `none`, `kd` equal to it.

    Differences hardly vary between seeds, so that two of them suffice.
    """
    for run in suite_runs(*load()).values():
        if run.teacher:
            teacher = read_as(RunResult, run.teacher.file("smoke", RESULTS))
            finish_run(root, "smoke", run, teacher, noise={"bcd": 0.02, "cwd": 0.9}.get(run.method, 0.5))
