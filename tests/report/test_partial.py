"""Tables of a part of a suite: what is not run is marked and counted, and nobody takes them for whole ones."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from support.suite_results import change_weight, finished_fixture, load, project_fixture  # noqa: F401

from bcd import metrics
from bcd.cli import main
from bcd.errors import UserError
from bcd.report import figures, render, stats, tables

STUDENT = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"
KINDS = ("md", "tex", "csv", "json", "png")


def lose(*names):
    """Delete run files: `kd/s0`, or `teacher`."""
    for name in names:
        teacher = Path("results/smoke/teachers/semantic/scenes-smoke/smoke-teacher/none/s0.json")
        (teacher if name == "teacher" else Path(f"results/smoke/runs/{STUDENT}/{name}.json")).unlink()


def measure(table="all-labels", partial=True):
    return tables.measure(*load(), table, Path("results"), Path("data"), partial=partial)


def rows(content):
    return {row["method"]: row for row in content["pairs"][0]["rows"]}


def files(partial=True):
    return {kind: tables.table_file(Path("results"), "smoke", "all-labels", kind, partial=partial) for kind in KINDS}


def test_without_the_flag_a_missing_run_stays_an_error_that_names_it(project):
    lose("kd/s0")
    with pytest.raises(UserError, match=rf"missing: {STUDENT}/kd/s0; run .* or .*`bcd tables --partial`"):
        measure(partial=False)


def test_cells_that_are_not_run_are_marked_and_counted_in_every_format(project):
    lose("kd/s0", "cwd/s0", "cwd/s1")
    paths = tables.build(*load(), "all-labels", partial=True)
    assert paths == list(files().values()) and not Path("results/smoke/tables").exists()
    markdown, tex, long, trace = (path.read_text() for path in paths[:4])
    for text in (markdown, tex, trace):
        assert "PARTIAL: 3 of 19 runs are missing" in text
        assert f"Left out, runs are missing: {STUDENT}: kd (s0), cwd (s0, s1)." in text.replace(r"\_", "_")
        assert "Differences over fewer seeds" in text and "kd (s1)" in text
    for text, gap in ((markdown, " | "), (tex, " & ")):
        lines = [line.strip("| \\").split(gap) for line in text.splitlines()]
        cells = {line[0]: line for line in lines}
        assert set(cells["cwd"][1:11]) == {"not run"}
        assert "kd (1 of 2 seeds)" in cells and "bcd" in cells and not any("n/a" in line for line in cells)
    assert "tab:smoke-all-labels-partial" in tex
    lines = list(csv.DictReader(long.splitlines()))
    assert {line["partial"] for line in lines} == {"PARTIAL: 3 of 19 runs are missing"}
    counts = {line["method"]: (line["runs"], line["missing"]) for line in lines}
    wanted = {"cwd": ("0", "2"), "kd": ("1", "1"), "bcd": ("2", "0"), "teacher": ("1", "0")}
    assert {method: counts[method] for method in wanted} == wanted
    assert all(line["mean"] == "" for line in lines if line["method"] == "cwd")


def test_a_difference_is_over_the_seeds_that_row_and_baseline_share(project):
    lose("kd/s0", "none/s1", "bcd/s1")
    content = measure()
    found = rows(content)
    assert found["kd"]["cells"]["miou"]["values"] and found["kd"]["cells"]["miou"]["difference"] is None
    stored = {m: metrics.load_rows(Path("results") / found[m]["runs"][0]["rows"])[0] for m in ("bcd", "brd", "none")}
    for method in ("bcd", "brd"):
        cell = found[method]["cells"]["miou"]["difference"]
        wanted = stats.compare([stored[method]], [stored["none"]], metrics=("miou",))["miou"]
        assert len(cell["values"]) == 1
        assert (cell["mean"], cell["low"], cell["high"], cell["p"]) == (wanted.mean, wanted.low, wanted.high, wanted.p)
    assert len(found["brd"]["cells"]["miou"]["values"]) == 2
    assert content["comparisons"] == 3 * (len(found) - 3)  # all but teacher, none and kd
    assert "brd (s0), " in content["notes"][1] and " kd " not in content["notes"][1]


def test_runs_of_other_parameters_are_left_out_with_the_reason(project):
    change_weight("pbd")
    content = measure()
    assert rows(content)["pbd"]["runs"] == [] and content["partial"]["missing"].keys() == {
        "runs were made with other parameters"
    }


def test_without_a_teacher_nothing_distilled_is_believed(project):
    lose("teacher")
    content = measure()
    found = rows(content)
    assert [method for method, row in found.items() if row["runs"]] == ["none"]
    assert content["pairs"][0]["images"] == 6 and "Teacher smoke-teacher:" not in content["caption"]
    assert render.terminal(content).count("not run") >= 9 and figures.forest(content)


def test_a_table_of_which_nothing_is_run_can_be_seen(project):
    for path in Path("results/smoke").rglob("s*.json"):
        path.unlink()
    content = measure()
    assert "PARTIAL: 19 of 19 runs are missing" in render.markdown(content)
    assert all(cell["mean"] is None for row in rows(content).values() for cell in row["cells"].values())
    assert render.tex(content) and render.long_csv(content) and figures.forest(content)
    json.dumps(content, allow_nan=False)


def test_the_figure_says_so_and_names_what_is_not_run(project):
    lose("kd/s0", "cwd/s0", "cwd/s1")
    figure = figures._figure(measure())
    assert figure.get_suptitle() == "PARTIAL: 3 of 19 runs are missing"
    axes = figure.subfigs[0].axes
    labels = [text.get_text() for text in axes[0].get_yticklabels()]
    assert "kd (1 of 2 seeds)" in labels and "cwd" in labels
    assert [text.get_text() for text in axes[0].texts] == ["not run"]


def test_with_every_run_there_the_numbers_are_those_of_the_whole_table(project):
    whole, partial = measure(partial=False), measure()
    assert partial.pop("partial") == {"runs": 19, "missing": {}}
    assert partial["caption"].startswith("PARTIAL: 0 of 19 runs are missing")
    assert {**partial, "caption": None} == {**whole, "caption": None}
    assert "partial" not in whole and np.isfinite(rows(whole)["bcd"]["cells"]["miou"]["mean"])


def test_the_command_leaves_the_whole_table_alone(project, capsys):
    options = {"suite": "smoke", "table": "all-labels"}
    main.tables(**options)
    before = {path: path.read_bytes() for path in files(partial=False).values()}
    lose("brd/s1")
    with pytest.raises(UserError, match=f"{STUDENT}/brd/s1"):
        main.tables(**options)
    capsys.readouterr()
    main.tables(**options, partial=True)
    assert capsys.readouterr().out.split() == [str(path) for path in files().values()]
    assert {path: path.read_bytes() for path in before} == before
    main.tables(**options, partial=True, show=True)
    shown = capsys.readouterr().out
    assert "PARTIAL: 1 of 19" in shown.splitlines()[0] and "brd (1 of 2 seeds)" in shown
