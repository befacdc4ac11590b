"""What is shown of runs, without MLflow."""

import json
import math

import pytest

from bcd.config.suites import load_suite
from bcd.tracking.compare import against_teacher
from bcd.tracking.experiment import address, note, tags, views
from bcd.tracking.naming import RunName
from bcd.tracking.parents import means

STUDENT = "semantic/scenes/light-student-from-light-teacher"


def test_a_name_begins_with_method_and_seed():
    name = RunName.of(f"{STUDENT}/cwd/s3")
    assert name.shown == "cwd s3 semantic scenes light-student-from-light-teacher"
    assert name.shown_superseded == "cwd s3 (superseded) semantic scenes light-student-from-light-teacher"
    assert name.mean_of(1).startswith("cwd mean of 1 seed semantic ") and name.mean_of(2).startswith(
        "cwd mean of 2 seeds "
    )
    assert name.group == f"{STUDENT}/cwd" and not name.is_teacher


def test_a_teacher_has_no_method():
    name = RunName.of("semantic/scenes/light-teacher/none/s0")
    assert name.is_teacher and name.shown == "teacher s0 semantic scenes light-teacher"
    assert name.params == {"method": "teacher", "dataset": "scenes", "pair": "light-teacher", "task": "semantic"}


def test_settings_may_hold_slashes():
    name = RunName.of(f"{STUDENT}/cwd/s0?terms.cwd/1.weight=2.0")
    assert (name.method, name.repetition, name.settings) == ("cwd", "0", "terms.cwd/1.weight=2.0")
    assert name.shown.endswith(" terms.cwd/1.weight=2.0")


def test_the_gap_closed():
    found = against_teacher(
        {"miou": 55.0, "frag": 3.0}, {"miou": 50.0, "frag": 4.0}, {"miou": 70.0, "frag": 2.0}, ["miou", "frag"]
    )
    assert found == {"teacher/miou": 70.0, "gap_closed/miou": 0.25, "teacher/frag": 2.0, "gap_closed/frag": 0.5}


@pytest.mark.parametrize(
    ("student", "none", "teacher", "left"),
    [
        ({"ap": 1.0}, {"ap": 2.0}, {"ap": 2.0}, {"teacher/ap": 2.0}),
        ({"ap": 1.0}, {}, {"ap": 2.0}, {"teacher/ap": 2.0}),
        ({}, {"ap": 1.0}, {"ap": 2.0}, {"teacher/ap": 2.0}),
        ({"ap": 1.0}, {"ap": 1.0}, {"ap": math.nan}, {}),
        ({"ap": 1.0}, {"ap": 1.0}, {}, {}),
    ],
)
def test_an_undefined_gap_is_left_out(student, none, teacher, left):
    assert against_teacher(student, none, teacher, ["ap"]) == left


def test_means_are_of_what_every_seed_has():
    found = means([{"miou": 1.0, "ap_l": 5.0, "macs": 8.0}, {"miou": 2.0, "macs": 8.0}, {"miou": 3.0, "macs": 8.0}])
    assert found == {"miou": 2.0, "macs": 8.0, "sd/miou": 1.0, "seeds": 3}
    assert means([{"miou": 1.0}]) == {"miou": 1.0, "seeds": 1}


def test_the_address_opens_the_runs_of_a_suite():
    assert address("7") == "#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=bcd"
    assert address(None) == "#/experiments?workflowType=machine_learning"


def test_a_suite_names_its_tables_and_views():
    suite = load_suite("scenes")
    assert suite.description.strip() in note(suite) and "results/scenes/report.html" in note(suite)
    assert all(f"`results/scenes/tables/{table.name}.md`" in note(suite) for table in suite.tables)
    assert "mlflow.sharedViewState.bcd" in tags(suite)
    for key, (name, state) in views(suite).items():
        stored = json.loads(tags(suite)[f"mlflow.sharedViewState.{key}"])
        assert stored["name"] == name and json.loads(stored["state"]) == state
        assert {"metrics.`miou`", "metrics.`ap`", "metrics.`gap_closed/miou`"} <= set(state["selectedColumns"])
