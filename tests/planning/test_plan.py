"""What `bcd plan` says of runs that are done, changed, stale, stored, unfinished or missing."""

import shutil

import pytest

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.planning import survey
from bcd.runs import expand, status
from bcd.runs.code import CodeHashes
from bcd.runs.run import Run
from bcd.runs.status import Verdict
from bcd.train import job

PAIR = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"
TEACHER = "semantic/scenes-smoke/smoke-teacher/none/s0"


def runs() -> dict[str, Run]:
    return expand.suite_runs(load_params(), load_suite("smoke"))


def train(*keys: str) -> None:
    job.run_group("smoke", [runs()[key] for key in keys], lambda text: None)


def planned() -> dict[str, survey.Planned]:
    return {one.run.key: one for one in survey.survey("smoke", runs())}


def states() -> dict[str, str]:
    return {key: str(one.status.verdict) for key, one in planned().items()}


@pytest.fixture
def trained(project):
    train(TEACHER)
    train(f"{PAIR}/none/s0", f"{PAIR}/kd/s0")
    return project


def test_done_and_missing_with_an_estimate_from_records(trained):
    found, said = planned(), states()
    assert [said[key] for key in (TEACHER, f"{PAIR}/kd/s0", f"{PAIR}/kd/s1")] == ["done", "done", "missing"]
    assert found[f"{PAIR}/kd/s1"].seconds > 0 and found[f"{PAIR}/kd/s1"].bytes > 0
    totals = survey.totals(list(found.values()))
    assert totals.verdicts[Verdict.DONE] == 3 and totals.seconds > 0


def test_a_changed_weight_and_back(trained):
    path = trained / "params" / "methods.yaml"
    text = path.read_text()
    head, found, rest = text.partition("\nkd:\n")
    path.write_text(head + found + rest.replace("weight: ", "weight: 9", 1))
    assert states()[f"{PAIR}/kd/s0"] == "changed" and states()[f"{PAIR}/none/s0"] == "done"
    path.write_text(text)
    assert states()[f"{PAIR}/kd/s0"] == "done"


def test_a_lost_edge_is_stored_and_costs_nothing(trained):
    runs()[f"{PAIR}/kd/s0"].file("smoke").unlink()
    assert states()[f"{PAIR}/kd/s0"] == "stored"
    before = sorted((trained / "results/store").glob("*/record.json"))
    train(f"{PAIR}/none/s0", f"{PAIR}/kd/s0")
    assert sorted((trained / "results/store").glob("*/record.json")) == before
    assert states()[f"{PAIR}/kd/s0"] == "done"


def test_older_code_is_stale_until_the_user_drops_it(trained, monkeypatch):
    monkeypatch.setattr(status, "code_of", lambda training: CodeHashes("other", "other"))
    assert states()[f"{PAIR}/kd/s0"] == "stale"
    dropped = survey.drop_stale(planned().values())
    assert set(dropped) == {TEACHER, f"{PAIR}/none/s0", f"{PAIR}/kd/s0"}
    assert states()[TEACHER] == "missing"


def test_an_unfinished_run_says_how_far_it_came(trained):
    run = runs()[f"{PAIR}/cwd/s0"]
    folder = job.resolve("smoke", run).folder()
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text('{"step": 1}')
    found = planned()[run.key].status
    assert (found.verdict, found.step) == (Verdict.UNFINISHED, 1)


def test_without_data_finished_runs_are_still_done(trained):
    """Results need no data; what is to be trained needs it, and says that it is missing."""
    before = states()
    shutil.rmtree(trained / "data" / "scenes-smoke")
    assert states() == before and survey.data_state(runs()) == {"scenes-smoke": "missing"}
