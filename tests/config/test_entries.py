"""An entry of params that is wrong is named by what uses it, and stands in nobody else's way."""

import sys

import pytest
from support.project import ROOT, run

from bcd.config.entries import Entries
from bcd.config.load import load_params, wrong_entries
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.runs.expand import suite_runs

WRONG = {  # file -> an entry, and what is wrong with it
    "datasets": ("odd: {format: mask}", "classes: this key is required and missing"),
    "models": ("odd: {head: psp, backbone: resnett18, channels: 8}", "backbone: 'resnett18' is not known"),
    "methods": ("odd: {description: d, terms: [{term: kdd, taps: [logits], weight: 1.0}]}", "'kdd'"),
    "recipes": ("odd: {steps: 1}", "this key is required and missing"),
    "exports": ("odd: {format: onx}", "'onx' is not allowed; did you mean 'onnx'?"),
}
# How a table of the suite `smoke` uses such an entry.
USES = {
    "datasets": ("dataset: scenes-smoke,", "dataset: odd,"),
    "models": ("student: smoke-student", "student: odd"),
    "methods": ("methods: [none, kd,", "methods: [none, odd,"),
    "recipes": ("recipe: smoke}", "recipe: odd}"),
    "exports": ("methods: [none, bcd]", "methods: [none, bcd]\n    exports: [odd]"),
}


@pytest.fixture
def mistaken(project):
    """The project with a wrong entry in each file."""
    for file, (entry, _) in WRONG.items():
        with open(project / "params" / f"{file}.yaml", "a") as stream:
            stream.write(f"\n{entry}\n")
    return project


def test_suites_that_do_not_use_them_are_as_before(project, request):
    before = suite_runs(load_params(), load_suite("smoke"))
    request.getfixturevalue("mistaken")
    after = suite_runs(load_params(), load_suite("smoke"))
    assert {key: one.fingerprint for key, one in after.items()} == {key: one.fingerprint for key, one in before.items()}


@pytest.mark.parametrize("file", WRONG)
def test_a_suite_that_uses_one_names_it(mistaken, file):
    suite = mistaken / "params/suites/smoke.yaml"
    old, new = USES[file]
    suite.write_text(suite.read_text().replace(old, new, 1))
    with pytest.raises(UserError) as error:
        suite_runs(load_params(), load_suite("smoke"))
    assert str(error.value).startswith(f"params/{file}.yaml: odd")
    assert WRONG[file][1] in str(error.value)


def test_all_of_them_are_listed_in_the_order_of_the_files(mistaken):
    found = wrong_entries(load_params())
    assert [sentence.partition(": odd")[0] for sentence in found] == [f"params/{file}.yaml" for file in WRONG]
    assert all(said in sentence for sentence, (_, said) in zip(found, WRONG.values(), strict=True))


def test_commands_go_on_and_the_doctor_lists_them(mistaken):
    def bcd(*words: str):
        return run(sys.executable, "-m", "bcd.cli", *words, cwd=mistaken, check=False, PYTHONPATH=str(ROOT))

    planned = bcd("plan", "--suite", "smoke")
    assert planned.returncode == 0 and "odd" not in planned.stdout
    used = bcd("check", "odd")
    assert used.returncode == 2 and used.stdout.startswith("bcd: params/datasets.yaml: odd: classes: ")
    suite = mistaken / "params/suites/smoke.yaml"
    suite.write_text(suite.read_text().replace("task: instance", "task: instanse"))
    (mistaken / "params/suite.yaml").write_text("suite: smoke\n")
    found = bcd("doctor")
    *lines, last = found.stdout.splitlines()
    assert found.returncode == 2 and last.startswith("bcd: params/datasets.yaml: odd") and last.endswith("more, above)")
    wrong = [line for line in lines if line.startswith("wrong: ")]
    assert [line.split(": ")[1] for line in wrong] == [
        *(f"params/{file}.yaml" for file in WRONG),
        "params/suites/smoke.yaml",
    ]
    assert lines[-1].startswith("missing: data, which the default suite would name; params/suites/smoke.yaml: ")


def test_snakemake_goes_on(mistaken):
    planned = run("snakemake", "-n", "--config", "suite=smoke", cwd=mistaken, check=False, PYTHONPATH=str(ROOT))
    assert planned.returncode == 0 and "odd" not in planned.stdout


def test_a_file_that_is_no_yaml_stops_everything(mistaken):
    with open(mistaken / "params/exports.yaml", "a") as stream:
        stream.write("\nodd: {\n")
    with pytest.raises(UserError, match="exports.yaml: not valid YAML"):
        load_params()


def test_an_entry_is_parsed_once_and_only_when_it_is_looked_up():
    seen = []

    def parse(name: str, value: int) -> int:
        seen.append(name)
        if value < 0:
            raise UserError(f"{name} is negative")
        return 2 * value

    entries = Entries({"a": 1, "b": -1, "c": 3}, parse)
    assert list(entries) == ["a", "b", "c"] and "b" in entries and len(entries) == 3 and not seen
    assert entries["a"] == entries["a"] == 2 and seen == ["a"]
    assert entries.right() == {"a": 2, "c": 6} and entries.wrong() == ["b is negative"]
    other = entries.replaced({"a": 5, "d": 7})
    assert (other["a"], other["c"], other["d"], entries["a"]) == (5, 6, 7, 2) and "d" not in entries
