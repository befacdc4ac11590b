"""What is on disk and is not today's, as the Snakefile asks it; on a finished suite without training."""

import shutil
from pathlib import Path

import pytest
from support.suite_results import change_weight, finished_fixture, load, project_fixture  # noqa: F401

from bcd.planning.outdated import outdated
from bcd.report import tables
from bcd.report.panels import table_panels
from bcd.runs.expand import suite_rows

TABLE, PANELS = Path("results/smoke/tables/all-labels.json"), Path("results/smoke/figures/all-labels-panels.png")
STUDENT = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"


@pytest.fixture
def built(project):
    params, suite = load()
    tables.build(params, suite, "all-labels", figure=False)
    table_panels(params, suite, "all-labels")
    return project


def found() -> set[str]:
    params, suite = load()
    return {
        path.as_posix().removeprefix("results/smoke/") for path in outdated(params, suite, suite_rows(params, suite))
    }


def test_nothing_of_a_built_suite(built):
    assert not found()


@pytest.mark.parametrize(
    "lost", [f"runs/{STUDENT}/kd/s0.json", "teachers/semantic/scenes-smoke/smoke-teacher/none/s0.json"]
)
def test_a_run_that_is_gone_is_no_obstacle(built, lost):
    """It is missing and not outdated: Snakemake makes it again, and what is made of it."""
    (Path("results/smoke") / lost).unlink()
    assert {"tables/all-labels.json", "figures/all-labels-panels.png"} <= found()
    assert lost not in found()


def test_all_runs_of_a_changed_method_and_what_is_made_of_them(built):
    change_weight("cwd")
    assert found() == {f"runs/{STUDENT}/cwd/s{i}.json" for i in range(2)}


def test_what_is_asked_of_a_table(built):
    path = Path("params/suites/smoke.yaml")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("caption: ", "caption: Of late, ", 1), encoding="utf-8")
    assert found() == {"tables/all-labels.json"}


def test_damaged_outputs_are_made_again(built):
    TABLE.write_text("[]", encoding="utf-8")
    PANELS.write_bytes(b"no picture")
    assert found() == {"tables/all-labels.json", "figures/all-labels-panels.png"}


def test_data_of_another_request_and_data_that_is_gone(built):
    path = Path("params/datasets.yaml")
    path.write_text(path.read_text(encoding="utf-8").replace("{seed: 7, size: 48}", "{seed: 8, size: 48}"), "utf-8")
    assert "data/scenes-smoke/manifest.json" in found()
    shutil.rmtree("data")
    assert not found()
