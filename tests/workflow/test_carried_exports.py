"""A suite with exported students, really built, and a DVC remote that carries it to another clone."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from support.exports import chip_suite
from support.project import copy_project, run

from bcd.files import sha256_file

pytest.importorskip("onnxruntime")

BIN = Path(sys.executable).parent
STUDENT = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"
FORMS = ("onnx", "onnx-int8")


def call(project: Path, *command: str) -> str:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return run(str(BIN / command[0]), *command[1:], cwd=project, PATH=path).stdout


def git(project: Path, *arguments: str) -> None:
    run("git", *arguments, cwd=project)


def ran(said: str) -> set[str]:
    """What the jobs of a call were about, without the suite's own."""
    return set(re.findall(r"^Job \d+: (.*)$", said, re.MULTILINE)) - {"suite chip"}


def share(project: Path) -> None:
    call(project, "dvc", "push")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "Results")


def exported(project: Path) -> dict[str, str]:
    """Path in the project -> recorded sha256 of each exported file."""
    edges = [project / f"results/chip/runs/{STUDENT}/{m}@{form}/s0.json" for m in ("none", "cwd") for form in FORMS]
    found = [json.loads(edge.read_text()) for edge in edges]
    return {
        f"results/store/{one['store']}/{name}": sha256
        for one in found
        for name, sha256 in one["evaluation"]["exported"]["files"].items()
    }


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A built project with a remote, whose students stay in PyTorch, and a clone `there` beside it that pulled it."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here = copy_project(tmp_path / "here")
    (here / "params/suite.yaml").write_text("suite: chip\n")
    (here / "params/suites/chip.yaml").write_text(chip_suite(()))
    exports = here / "params/exports.yaml"
    exports.write_text(exports.read_text().replace("calibration: 64", "calibration: 4"))
    with (here / ".dvc/config").open("a") as settings:
        settings.write(f"    remote = shared\n['remote \"shared\"']\n    url = {tmp_path / 'remote'}\n")
    git(here, "init", "--quiet", "--initial-branch", "main")
    call(here, "snakemake")
    share(here)
    git(tmp_path, "clone", "--quiet", str(here), "there")
    call(tmp_path / "there", "dvc", "pull")
    return here


def test_exported_students_travel_to_a_clone_that_has_their_runs(here, tmp_path):
    there = tmp_path / "there"
    suite = here / "params/suites/chip.yaml"
    suite.write_text(chip_suite(FORMS))
    call(here, "snakemake")
    share(here)

    git(there, "pull", "--quiet")
    call(there, "dvc", "pull")
    files = exported(here)
    assert len(files) == 4 and exported(there) == files
    for name, sha256 in files.items():
        assert sha256_file(there / name) == sha256
        assert (there / f"{name}.json").read_bytes() == (here / f"{name}.json").read_bytes()
    # MLflow's database is not carried: it is a copy of the runs, and made here.
    assert ran(call(there, "snakemake")) == {"runs to MLflow"}
    assert "Nothing to be done" in call(there, "snakemake")
    assert "Running stage" not in call(there, "dvc", "repro")

    images = here / "data/scenes-smoke/images/test"
    call(there, "bcd", "predict", next(iter(files)), str(images), "--out", "seen")
    assert len(list((there / "seen/labels").glob("*.png"))) == len(list(images.iterdir()))
