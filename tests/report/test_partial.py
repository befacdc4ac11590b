"""Tables of a part of a suite: what is not run is marked and counted, and nobody takes them for whole ones."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from support.suite_results import change_weight, load
from support.tables import RESULTS, STUDENT, content, lose

from bcd import metrics
from bcd.cli import main
from bcd.errors import UserError
from bcd.report import figures, stats, tables
from bcd.report.render import latex, long_csv, markdown, terminal

KINDS = ("md", "tex", "csv", "json", "png")


def partial_content():
    return content(partial=True)


def rows(measured):
    return {row.method: row for row in measured.pairs[0].rows}


def files(partial=True):
    return {kind: tables.table_file(RESULTS, "smoke", "all-labels", kind, partial=partial) for kind in KINDS}


def test_without_the_flag_a_missing_run_stays_an_error_that_names_it(project):
    lose("kd/s0")
    with pytest.raises(UserError, match=rf"missing: {STUDENT}/kd/s0; run .* or .*`bcd tables --partial`"):
        content()


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
    measured = partial_content()
    found = rows(measured)
    assert found["kd"].cells["miou"].values and found["kd"].cells["miou"].difference is None
    stored = {m: metrics.load_rows(RESULTS / found[m].runs[0].rows)[0] for m in ("bcd", "brd", "none")}
    for method in ("bcd", "brd"):
        cell = found[method].cells["miou"].difference
        wanted = stats.compare([stored[method]], [stored["none"]], metrics=("miou",))["miou"]
        assert len(cell.values) == 1
        assert (cell.mean, cell.low, cell.high, cell.p) == (wanted.mean, wanted.low, wanted.high, wanted.p)
    assert len(found["brd"].cells["miou"].values) == 2
    assert measured.comparisons == 3 * (len(found) - 3)  # all but teacher, none and kd
    assert "brd (s0), " in measured.notes[1] and " kd " not in measured.notes[1]


def test_runs_of_other_parameters_are_left_out_with_the_reason(project):
    change_weight("pbd")
    measured = partial_content()
    assert rows(measured)["pbd"].runs == []
    assert measured.partial.missing.keys() == {"runs were made with other parameters"}


def test_without_a_teacher_nothing_distilled_is_believed(project):
    lose("teacher")
    measured = partial_content()
    found = rows(measured)
    assert [method for method, row in found.items() if row.runs] == ["none"]
    assert measured.pairs[0].images == 6 and "Teacher smoke-teacher:" not in measured.caption
    assert terminal.render(measured).count("not run") >= 9 and figures.forest(measured)


def test_a_table_of_which_nothing_is_run_can_be_seen(project):
    for path in Path("results/smoke").rglob("s*.json"):
        path.unlink()
    measured = partial_content()
    assert "PARTIAL: 19 of 19 runs are missing" in markdown.render(measured)
    assert all(cell.mean is None for row in rows(measured).values() for cell in row.cells.values())
    assert latex.render(measured) and long_csv.render(measured) and figures.forest(measured)
    json.dumps(measured.model_dump(mode="json"), allow_nan=False)


def test_the_figure_says_so_and_names_what_is_not_run(project):
    lose("kd/s0", "cwd/s0", "cwd/s1")
    figure = figures._figure(partial_content())
    assert figure.get_suptitle() == "PARTIAL: 3 of 19 runs are missing"
    axes = figure.subfigs[0].axes
    labels = [text.get_text() for text in axes[0].get_yticklabels()]
    assert "kd (1 of 2 seeds)" in labels and "cwd" in labels
    assert [text.get_text() for text in axes[0].texts] == ["not run"]


def test_with_every_run_there_the_numbers_are_those_of_the_whole_table(project):
    whole, measured = content(), partial_content()
    assert measured.partial.model_dump() == {"runs": 19, "missing": {}}
    assert measured.caption.startswith("PARTIAL: 0 of 19 runs are missing")
    assert measured.model_copy(update={"caption": whole.caption, "partial": None}) == whole
    assert whole.partial is None and np.isfinite(rows(whole)["bcd"].cells["miou"].mean)


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
