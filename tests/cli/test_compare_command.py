"""`bcd compare` as a process: what it prints, in its three forms, and how it refuses."""

import csv
import json
import os
import subprocess
import sys

import pytest
from support.project import ROOT
from support.suite_results import copied, finished_fixture  # noqa: F401
from support.tables import content

from bcd.report.compared import RowComparison


@pytest.fixture
def finished_project(tmp_path, finished, monkeypatch):  # noqa: F811
    monkeypatch.chdir(copied(finished, tmp_path / "project"))


def compare(*words, **env):
    command = [sys.executable, "-m", "bcd.cli", "compare", "--suite", "smoke", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | env
    return subprocess.run(command, capture_output=True, env=env, check=False)


def test_text_in_a_pipe_and_in_a_plain_locale(finished_project):
    done = compare("all-labels:none", "bcd")
    text = done.stdout.decode()
    assert done.returncode == 0 and not done.stderr
    assert text.startswith("smoke: all-labels: bcd − none\n") and text.endswith("regions.\n")
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 120
    plain = compare("all-labels:none", "bcd", PYTHONIOENCODING="ascii")
    assert plain.returncode == 0 and plain.stdout.decode("ascii").startswith("smoke: all-labels: bcd \\u2212 none\n")


def test_sentences_fit_a_narrow_terminal(finished_project):
    lines = compare("all-labels:none", "bcd", COLUMNS="40").stdout.decode().splitlines()
    assert lines[-1].endswith("regions.") and max(map(len, lines[-4:])) <= 40
    wide = compare("all-labels:none", "bcd", COLUMNS="400").stdout.decode().splitlines()
    assert " ".join(lines[-4:]).endswith(wide[-1]) and max(map(len, wide)) <= 120


def test_json_and_csv_are_what_their_readers_expect(finished_project):
    as_json, as_csv = (compare("detection:none", "bcd", "--metric", "ap", form) for form in ("--json", "--csv"))
    found = RowComparison.model_validate(json.loads(as_json.stdout))
    lines = list(csv.DictReader(as_csv.stdout.decode().splitlines()))
    table = content("detection").pairs[0].row("bcd").cells["ap"]
    assert found.metrics[0].mean == table.difference.mean == float(lines[0]["difference"])
    assert found.b.runs == content("detection").pairs[0].row("bcd").runs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none", "bcd"), "'none' and 'bcd' fit several rows; say one of: all-labels:none all-labels:bcd; few-labels:"),
        (("none", "bcdd"), "did you mean 'bcd'?"),
        (("all-labels:none/s0", "bcd/s1"), "no seed in common"),
        (("none", "kd", "--json", "--csv"), "say one of them"),
        (("all-labels:none", "kd", "--metric", "mio"), "did you mean 'miou'?"),
        (("\x1b[31m", "bcd"), "\\x1b[31m"),
    ],
)
def test_what_is_refused_is_one_sentence(finished_project, words, said):
    done = compare(*words)
    text = done.stderr.decode()
    assert done.returncode == 2 and not done.stdout
    assert text.startswith("bcd: ") and text.count("\n") == 1 and said in text and "\x1b" not in text
