"""The files that set a machine up agree with one another, and the commands teach."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from support.project import ROOT, run

BCD = str(Path(sys.executable).parent / "bcd")
LOCK = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements.lock").read_text(), re.M))
CONDA_NAMES = {"pytorch": "torch"}


def test_the_lock_is_hashed_and_names_no_host():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert text.count("==") <= text.count("--hash=sha256:")


def test_conda_pins_are_the_locks():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [re.split("=+", entry) for entry in listed if isinstance(entry, str)]
    pip = [re.split("=+", entry) for entry in listed[-1]["pip"] if not entry.startswith("-")]
    free = {"python", "pip", "detectron2"}
    pins = {name: rest for name, *rest in conda + pip if name not in free}
    assert pins == {name: [LOCK[CONDA_NAMES.get(name, name)]] for name in pins}
    assert "detectron2" in [name for name, *_ in conda]


def test_conda_has_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split("[<>=]", d)[0] for d in project["dependencies"] + project["optional-dependencies"]["dev"]}
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    names = {re.split("=+", e)[0] for e in [*listed[:-1], *listed[-1]["pip"]] if isinstance(e, str)}
    assert wanted <= {CONDA_NAMES.get(name, name) for name in names}


@pytest.mark.parametrize("command", ["fetch", "plan", "train", "evaluate", "tables", "panels", "track", "doctor"])
def test_every_command_explains_itself(command):
    assert "Usage" in run(BCD, command, "--help", cwd=ROOT).stdout


def test_help_and_planning_import_nothing_heavy():
    heavy = "('torch', 'mlflow', 'matplotlib', 'cv2')"
    code = f"import sys, bcd.cli, bcd.spec, bcd.config; print([m for m in {heavy} if m in sys.modules])"
    assert run(sys.executable, "-c", code, cwd=ROOT).stdout.strip() == "[]"


def test_doctor_reports_and_names_remedies(project):
    said = run(BCD, "doctor", cwd=project, BCD_MIRROR=str(project / "absent")).stdout
    assert "torch " in said and "cores" in said
    assert "missing: BCD_MIRROR" in said


def test_a_user_error_is_one_sentence_and_status_2(project):
    done = run(BCD, "fetch", "scnes", cwd=project, check=False)
    assert done.returncode == 2
    assert done.stdout == "bcd: bcd fetch: 'scnes' is not defined; did you mean 'scenes'?\n"


def test_outside_a_project_the_remedy_is_named(tmp_path):
    done = run(BCD, "plan", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "run the command in the project's folder" in done.stdout


def test_plan_counts_runs_and_names_what_is_missing(project):
    said = run(BCD, "plan", "--suite", "smoke", cwd=project).stdout
    assert "31 runs in 9 jobs; 31 missing" in said


def test_readme_commands_exist():
    """Every `bcd` command, suite and file that the README names is there."""
    text = (ROOT / "README.md").read_text()
    help_text = run(BCD, "--help", cwd=ROOT).stdout
    assert all(command in help_text for command in re.findall(r"^    bcd (\w+)", text, re.M))
    assert all((ROOT / f"params/suites/{suite}.yaml").exists() for suite in re.findall(r"suite=([\w-]+)", text))
    assert all((ROOT / path).exists() for path in re.findall(r"\]\((docs/[\w./-]+|bcd/[\w./-]+)\)", text))
