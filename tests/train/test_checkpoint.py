"""Train states: continued by the code that wrote them, started anew by other code, refused if a byte is wrong."""

import os
import pickle
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from support.smoke import PAIR, folder, result_of, runs, same, say

from bcd.errors import UserError
from bcd.runs import status, store
from bcd.runs.code import CodeHashes
from bcd.runs.progress import Progress, read_progress, write_state
from bcd.runs.record import RunResult
from bcd.runs.run import Run
from bcd.train import history, job
from bcd.train.checkpoint import load_state
from bcd.train.signals import Stopped

STEPS = 4
KEY = f"{PAIR}/none/s0"


def wanted(key: str = KEY) -> Run:
    """A short run without terms, so that it needs no teacher."""
    return runs(recipe__steps=STEPS)[key]


def stop_after(step: int, run: Run) -> Path:
    """Train so many steps of a run; returns its folder."""

    def signalled(text: str) -> None:
        if text.startswith(f"step {step}/"):
            os.kill(os.getpid(), signal.SIGTERM)

    # The signal is looked for after the next step.
    with pytest.raises(Stopped, match=f"step {step + 1} of {STEPS}"):
        job.run_group("smoke", [run], signalled)
    return job.resolve("smoke", run).folder()


def train(run: Run, lines: list[str] | None = None) -> RunResult:
    job.run_group("smoke", [run], say if lines is None else lines.append)
    return result_of(run)


def undisturbed(run: Run) -> RunResult:
    """What the run ends with; it is forgotten again."""
    result = train(run)
    shutil.rmtree(folder(result))
    run.file("smoke").unlink()
    return result


def rewrite(entry: Path, change, step: int | str = 2) -> None:
    """Replace the parts of a train state, with the right checksum."""
    spec = job.resolve("smoke", wanted())
    _, state, _ = load_state(entry, spec)
    change(state)
    progress = Progress.model_construct(**read_progress(entry).model_dump() | {"step": step})
    write_state(entry, progress, partial(torch.save, state))


def test_every_flipped_bit_and_every_cut_is_refused_and_the_remedy_works(project):
    whole = undisturbed(wanted())
    entry, spec = stop_after(1, wanted()), job.resolve("smoke", wanted())
    path = entry / "state.pt"
    good = path.read_bytes()
    for place in [*range(0, 400, 7), *range(400, len(good), len(good) // 40)]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(UserError, match=r"state.pt.* delete it to start this run anew"):
            load_state(entry, spec)
        path.write_bytes(good[:place])
        with pytest.raises(UserError, match=r"state.pt.* delete it to start this run anew"):
            load_state(entry, spec)
    with pytest.raises(UserError, match=f"{path} is not a readable train state"):
        train(wanted())
    assert status.judge_all("smoke", [wanted()])[KEY].verdict is status.Verdict.FAILED
    path.unlink()
    assert same(train(wanted()), whole) and not (entry / "failure.json").exists()


def test_a_state_goes_on_where_it_was_saved(project):
    whole = undisturbed(wanted())
    stop_after(1, wanted())
    lines: list[str] = []
    assert same(train(wanted(), lines), whole)
    assert f"continuing from step 2 of {STEPS}" in lines and store.record(folder(whole)).resumes == 1


def test_a_state_of_other_code_is_started_anew_with_a_word(project, monkeypatch):
    whole = undisturbed(wanted())
    with monkeypatch.context() as patch:
        patch.setattr(status, "code_of", lambda *_: CodeHashes("older", "older"))
        entry = stop_after(1, wanted())
    lines: list[str] = []
    assert same(train(wanted(), lines), whole)
    assert f"{entry}: the training code has changed since step 2 was saved: starting anew" in lines
    assert not any("continuing" in line for line in lines) and store.record(entry).resumes == 0
    steps = [line["step"] for line in history.read(entry)]
    assert steps == list(range(1, STEPS + 1))


def test_a_state_from_before_states_said_who_wrote_them_is_started_anew(project):
    entry = stop_after(1, wanted())
    torch.save({"spec": entry.name, "step": 2}, entry / "state.pt")
    lines: list[str] = []
    train(wanted(), lines)
    assert f"{entry}: its train state is of an older version of this program: starting anew" in lines


def test_the_state_of_another_run_is_refused(project):
    entry, other = stop_after(1, wanted()), stop_after(1, wanted(KEY.replace("/s0", "/s1")))
    shutil.copy(other / "state.pt", entry / "state.pt")
    with pytest.raises(UserError, match=f"the train state of another run .{other.name}.; delete it"):
        train(wanted())


def lose_a_part(state):
    del state["sums"]


def rename_a_parameter(state):
    objective = state["objective"]
    objective["student.other"] = objective.pop(next(iter(objective)))


def reshape_a_parameter(state):
    name = next(iter(state["objective"]))
    state["objective"][name] = state["objective"][name].flatten()


def lose_the_optimizer(state):
    state["optimizer"] = {}


def change_the_random_state(state):
    state["rng"] = [torch.zeros(3)]


def change_the_streaks(state):
    state["streaks"] = {"task": 3}


def nothing(state):
    pass


def test_parts_that_do_not_fit_are_refused(project):
    entry = stop_after(1, wanted())
    good = (entry / "state.pt").read_bytes()
    changes = (lose_a_part, rename_a_parameter, reshape_a_parameter, lose_the_optimizer, change_the_random_state)
    changes += (change_the_streaks,)
    for change, step in [(change, 2) for change in changes] + [(nothing, step) for step in (-5, STEPS + 1, "two")]:
        (entry / "state.pt").write_bytes(good)
        rewrite(entry, change, step)
        with pytest.raises(UserError, match="is not a readable train state .*; delete it to start this run anew"):
            train(wanted())
    assert not wanted().file("smoke").exists()


def test_a_state_that_would_run_code_is_refused(project):
    entry = stop_after(1, wanted())

    class Evil:
        def __reduce__(self):
            return os.system, ("touch evil",)

    write_state(entry, read_progress(entry), lambda file: file.write(pickle.dumps(Evil())))
    with pytest.raises(UserError, match="is not a readable train state"):
        train(wanted())
    (entry / "state.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="is not a readable train state"):
        train(wanted())
    assert not Path("evil").exists()
