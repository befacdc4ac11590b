"""The numbers of a table are those of its runs, and of `bcd.report.stats`."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.suite_results import load
from support.tables import RESULTS, cell, content, finish_clearly, row, student_file

from bcd import metrics
from bcd.report import stats, tables
from bcd.runs.expand import table_rows

# --- numbers -----------------------------------------------------------------------------------------------


def test_means_deviations_and_differences_are_those_of_the_run_files(project):
    measured = content()
    for method in ("none", "bcd", "kd"):
        results = [json.loads(student_file(method, r).read_text()) for r in range(2)]
        for metric in measured.metrics:
            values = [result["metrics"][metric] for result in results]
            found = cell(measured, method, metric)
            assert found.values == pytest.approx(values, rel=1e-12)
            assert found.mean == pytest.approx(np.mean(values), rel=1e-12)
            assert found.std == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2), rel=1e-9, abs=1e-12)
    bcd, none = (cell(measured, method) for method in ("bcd", "none"))
    assert bcd.difference.values == pytest.approx(np.subtract(bcd.values, none.values))
    assert bcd.difference.low <= bcd.difference.mean <= bcd.difference.high


def test_intervals_and_holm_marks_are_those_of_stats(project):
    params, suite = load()
    measured = content()
    rows = {}
    for one in table_rows(params, suite, suite.tables[0]):
        names = [RESULTS / run.rows for run in row(measured, one.method).runs]
        rows[one.method] = [metrics.load_rows(name)[0] for name in names]
    found = {
        (method, metric): difference
        for method in rows
        if method not in ("none", "teacher")
        for metric, difference in stats.compare(
            rows[method], rows["none"], metrics=suite.tables[0].main_metrics
        ).items()
    }
    rejected = stats.holm({key: difference.p for key, difference in found.items()})
    assert measured.comparisons == len(found) == 8 * 3
    for (method, metric), difference in found.items():
        compared = cell(measured, method, metric).difference
        assert (compared.low, compared.high, compared.p) == (difference.low, difference.high, difference.p)
        assert compared.significant == rejected[method, metric]
        assert compared.better == (difference.mean > 0)


def test_only_significant_differences_have_a_verdict(project):
    finish_clearly(project)
    assert cell(content("few-labels"), "none").verdict is None
    measured = content()
    assert cell(measured, "bcd").verdict == "better"
    assert cell(measured, "cwd").verdict == "worse"
    assert cell(measured, "kd").difference.mean == 0 and cell(measured, "kd").verdict is None


def test_fewer_fragments_are_better(project):
    measured = content(main_metrics=["frag"])
    worse, better = (cell(measured, method, "frag").difference for method in ("cwd", "bcd"))
    assert worse.mean > 0 and not worse.better
    assert better.mean < 0 and better.better


def test_the_teacher_is_one_run_that_is_compared_with_nothing(project):
    teacher = row(content(), "teacher")
    assert len(teacher.runs) == 1
    for found in teacher.cells.values():
        assert found.std is None and found.difference is None


def test_a_table_may_compare_with_another_row_than_none(project):
    measured = content(baseline="bcd")
    bcd, none = (cell(content(), method).mean for method in ("bcd", "none"))
    found = {method: cell(measured, method).difference for method in ("none", "bcd")}
    assert found["bcd"] is None and found["none"].mean == pytest.approx(none - bcd)


def test_one_seed_has_no_deviation(project):
    assert cell(content(seeds=1), "bcd").std is None


# --- traces ------------------------------------------------------------------------------------------------


def test_every_cell_leads_to_existing_files_that_hold_its_value(project):
    tables.build(*load(), "all-labels", figure=False)
    measured = json.loads(Path("results/smoke/tables/all-labels.json").read_text())
    for one in measured["pairs"][0]["rows"]:
        for i, run in enumerate(one["runs"]):
            result = json.loads((RESULTS / run["file"]).read_text())
            assert result["key"] == run["key"] and result["evaluation"]["hash"] == run["evaluation"]
            assert result["seed"] == run["seed"] and result["evaluation"]["rows_sha256"] == run["rows_sha256"]
            assert (RESULTS / run["record"]).parent == RESULTS / run["store"]
            assert (RESULTS / run["record"]).exists() and (RESULTS / run["rows"]).exists()
            for metric, found in one["cells"].items():
                assert found["values"][i] == pytest.approx(result["metrics"][metric], rel=1e-12)
