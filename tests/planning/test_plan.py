"""What `bcd plan` says of runs that are done, changed, stale, stored, unfinished or missing."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.planning import survey
from bcd.runs import expand, status, store, usable
from bcd.runs.code import CodeHashes
from bcd.runs.progress import Progress, write_state
from bcd.runs.record import Failure
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


@pytest.mark.parametrize("change", [{"metrics": {"miou": 99.0}}, {"parameters": 1}, {"seal": ""}])
def test_a_run_file_that_was_changed_by_hand_is_not_done(trained, change):
    path = runs()[f"{PAIR}/kd/s0"].file("smoke")
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | change))
    assert states()[f"{PAIR}/kd/s0"] == "stored"
    train(f"{PAIR}/kd/s0")
    assert path.read_text() == before


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
    monkeypatch.setattr(status, "code_of", lambda *_: CodeHashes("other", "other"))
    assert states()[f"{PAIR}/kd/s0"] == "stale"
    dropped = survey.drop_stale(planned().values())
    assert set(dropped) == {TEACHER, f"{PAIR}/none/s0", f"{PAIR}/kd/s0"}
    assert states()[TEACHER] == "missing"


def attempt(key: str, step: int, made_by: dict[str, str] | None = None) -> Path:
    """The folder of a run that was saved after so many steps, by today's code unless something else is named."""
    run = runs()[key]
    spec = job.resolve("smoke", run)
    makers = status.made_by(run.training) if made_by is None else made_by
    write_state(spec.folder(), Progress(spec=spec.hash, step=step, made_by=makers), lambda file: file.write(b"..."))
    return spec.folder()


def test_an_unfinished_run_says_how_far_it_came(trained):
    attempt(f"{PAIR}/cwd/s0", 1)
    found = planned()[f"{PAIR}/cwd/s0"].status
    assert (found.verdict, found.step, found.left) == (Verdict.UNFINISHED, 1, 1)
    assert found.line == f"unfinished {PAIR}/cwd/s0 at step 1, 1 left"


def test_a_state_of_other_code_or_packages_counts_for_nothing(trained):
    today = status.made_by(runs()[f"{PAIR}/cwd/s0"].training)
    for change, named in (({"the training code": "0" * 16}, "the training code has"), ({"torch": "1.0"}, "torch has")):
        attempt(f"{PAIR}/cwd/s0", 1, today | change)
        found = planned()[f"{PAIR}/cwd/s0"].status
        assert (found.verdict, found.step, found.left) == (Verdict.MISSING, 0, 2)
        assert found.line.endswith(f"{named} changed since step 1 was saved: starting anew")


def test_a_state_from_before_states_said_who_wrote_them_counts_for_nothing(trained):
    folder = attempt(f"{PAIR}/cwd/s0", 1)
    torch.save({"step": 1}, folder / "state.pt")
    found = planned()[f"{PAIR}/cwd/s0"].status
    assert (found.verdict, found.left) == (Verdict.MISSING, 2) and "older version of this program" in found.note


def test_a_failed_run_says_why_and_what_is_damaged_says_so(trained):
    folder = attempt(f"{PAIR}/cwd/s0", 1)
    store.note_failure(folder, Failure(step=2, why="loss not finite at step 2"))
    found = planned()[f"{PAIR}/cwd/s0"].status
    assert (found.verdict, found.left) == (Verdict.FAILED, 1) and found.line.endswith(
        "1 left: loss not finite at step 2"
    )
    with pytest.raises(UserError, match=r"runs failed \(`bcd plan --suite smoke` says why\): .*/cwd/s0"):
        usable.read_runs("smoke", [runs()[f"{PAIR}/cwd/s0"]])
    for name in ("failure.json", "state.pt"):
        for content in ("", "[]", "{}", "\x00"):
            (folder / name).write_text(content)
            found = planned()[f"{PAIR}/cwd/s0"].status
            assert found.verdict is Verdict.FAILED and found.left == 2 and found.note.startswith(str(folder / name))
        (folder / name).unlink()  # what each of the sentences says
    assert states()[f"{PAIR}/cwd/s0"] == "missing"


def test_a_result_without_its_record_or_beside_it_is_not_done(trained):
    """Deleted, copied from another run, or of other weights than its small JSON says."""
    run = runs()[f"{PAIR}/kd/s0"]
    folder = planned()[run.key].status.place
    edge = run.file("smoke").read_text()
    run.file("smoke").write_text(edge.replace(planned()[run.key].status.finished.weights_sha256, "0" * 64))
    assert states()[run.key] == "stored"  # so it is written again, and nothing is trained
    train(run.key)
    assert run.file("smoke").read_text() == edge
    other = planned()[f"{PAIR}/none/s0"].status.place
    shutil.copy(other / "record.json", folder / "record.json")
    with pytest.raises(UserError, match=f"record of another run, {other.name}; delete the folder {folder}"):
        planned()
    shutil.rmtree(folder)  # what that says
    found = planned()[run.key].status
    assert found.verdict is Verdict.CHANGED and found.left == 2 and found.why == "runs are no longer in results/store"
    train(run.key)
    assert run.file("smoke").read_text() == edge


def test_without_data_finished_runs_are_still_done(trained):
    """Results need no data; what is to be trained needs it, and says that it is missing."""
    before = states()
    shutil.rmtree(trained / "data" / "scenes-smoke")
    assert states() == before and survey.data_state(runs()) == {"scenes-smoke": "missing"}
