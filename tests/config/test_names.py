"""What becomes a folder, a run key or a word of a shell command is checked when it is read."""

import re

import pytest
import yaml
from support.project import run
from test_config import edit

from bcd.config.load import load_params, wrong_entries
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.runs.expand import suite_runs

BAD = [
    "a" * 201,
    "é" * 101,
    "a\x1b[31m",
    "a b",
    "x'y",
    "a$b",
    "a/b",
    "..",
    "../up",
    "a..b",
    "a;b",
    "-a",
    ".a",
    "a`b`",
    "a\\b",
    "",
]
GOOD = ["smoké", "12", "β-kd", "x" * 200, "a.b", "a_b", "A+b"]


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("file", ["methods", "models", "recipes", "datasets"])
def test_an_entry_with_a_bad_name_is_refused(project, file, name):
    path = project / "params" / f"{file}.yaml"
    content = yaml.safe_load(path.read_text())
    content[name] = next(iter(content.values()))
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    params = load_params(project / "params")
    message = f"{file}.yaml: .*(cannot be a name|too long for a name)"
    with pytest.raises(UserError, match=message):
        getattr(params, file)[name]
    (sentence,) = wrong_entries(params)
    assert re.search(message, sentence)


@pytest.mark.parametrize("name", BAD)
def test_a_suite_or_a_table_with_a_bad_name_is_refused(project, name):
    with pytest.raises(UserError, match="suite: .*(cannot be a name|too long for a name)"):
        load_suite(name)
    edit(project, "suites/smoke.yaml", "name: few-labels", f"name: {yaml.safe_dump(name, width=1000).splitlines()[0]}")
    with pytest.raises(UserError, match=r"tables\[1\].name: .*(cannot be a name|too long for a name)"):
        load_suite("smoke")


@pytest.mark.parametrize("name", GOOD)
def test_other_names_are_fine(project, name):
    edit(project, "suites/smoke.yaml", "name: few-labels", f"name: '{name}'")
    assert load_suite("smoke").tables[1].name == name


def test_names_that_differ_in_case_or_punctuation_are_different_rules(project):
    """Two pairs of one table whose models' names differ in what a rule's name may not hold."""
    models = project / "params" / "models.yaml"
    lines = models.read_text().splitlines()
    student = next(line for line in lines if line.startswith("smoke-student:"))
    extra = [student.replace("smoke-student", name) for name in ("studentA", "studentB", "student-a", "student_a")]
    models.write_text("\n".join([*lines, *extra]) + "\n")
    pair = "{dataset: scenes-smoke, teacher: smoke-teacher, teacher_recipe: smoke, student: %s, recipe: smoke}"
    pairs = "\n".join(f"      - {pair % name}" for name in ("studentA", "studentB", "student-a", "student_a"))
    edit(project, "suites/smoke.yaml", f"      - {pair % 'smoke-student'}", pairs)
    assert len(suite_runs(load_params(), load_suite("smoke"))) > 31
    said = run("snakemake", "-n", "--config", "suite=smoke", cwd=project).stdout
    assert "already used" not in said and "job" in said


@pytest.mark.parametrize(
    "setting", ["sute=smoke", "foo=1", "suite=0", "suite=../suites/smoke", "suite=smokee", "suite=1e3"]
)
def test_a_config_that_snakemake_does_not_know_is_an_error(project, setting):
    done = run("snakemake", "-n", "--config", setting, cwd=project, check=False)
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert any(
        word in done.stdout for word in ("unknown", "does not exist", "cannot be a name", "and not as a name; write")
    )


def test_a_suite_cannot_send_data_to_another_folder(project):
    edit(project, "suites/smoke.yaml", "task: semantic", "set: {datasets.scenes-smoke.files: ../../x}\ntask: semantic")
    with pytest.raises(UserError, match="set.datasets.scenes-smoke: '../../x' cannot be a name"):
        suite_runs(load_params(), load_suite("smoke"))
