"""Histories become curves that are short enough for a page."""

import json

import pytest

from bcd.report.page.curves import POINTS, curve


def write(folder, lines):
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_short_history_stays_as_it_is(tmp_path):
    write(tmp_path, [{"step": s, "loss": 2.0 / s, "cwd": 0.5} for s in (1, 2)])
    assert curve(tmp_path) == {"steps": [1, 2], "values": {"cwd": [0.5, 0.5], "loss": [2.0, 1.0]}}


def test_a_long_one_is_averaged_over_neighbours(tmp_path):
    write(tmp_path, [{"step": s, "loss": float(s)} for s in range(1, 10 * POINTS + 1)])
    found = curve(tmp_path)
    assert len(found["steps"]) == POINTS
    assert (found["steps"][0], found["values"]["loss"][0]) == (10, 5.5)
    assert (found["steps"][-1], found["values"]["loss"][-1]) == (600, 595.5)


def test_what_is_not_finite_is_left_out(tmp_path):
    write(tmp_path, [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 1.0}])
    assert curve(tmp_path)["values"]["loss"] == [None, 1.0]


@pytest.mark.parametrize("there", [True, False])
def test_without_lines_there_is_no_curve(tmp_path, there):
    if there:
        write(tmp_path, [])
    assert curve(tmp_path) == {"steps": [], "values": {}}
