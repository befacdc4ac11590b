"""Steps that are timed without training: which kinds, how they are kept, and that they are like those of training."""

import json

import pytest
from test_plan import PAIR, TEACHER, runs, train

from bcd.cli import main
from bcd.errors import UserError
from bcd.planning import cost, step_times, survey, timing
from bcd.planning.cost import MEASURED, TIMED


def test_every_run_of_a_suite_has_a_time_without_data_and_without_training(project, capsys):
    main.plan(suite="smoke", time=True)
    said = capsys.readouterr().out
    found, rates = runs(), cost.measured(survey.RESULTS)
    assert {run.training.task for run in found.values()} == {"semantic", "detection", "instance"}
    for run in found.values():
        step, share = rates.step(run), rates.share(run)
        assert step.origin == TIMED and step.samples >= timing.FEWEST and 0 < step.low <= step.seconds <= step.high
        assert share.origin == (TIMED if run.training.terms else "not needed")
    assert "unknown" not in said.partition("Disk")[0] and "Timed: training steps on this machine" in said
    assert not list((project / "results/store").glob("*"))
    main.plan(suite="smoke")
    assert capsys.readouterr().out == said


def test_a_record_counts_before_a_timed_step_and_is_like_it(project):
    wanted = {key: run for key, run in runs().items() if run.training.task == "semantic"}
    found = timing.timed(wanted, cost.Rates())
    step_times.add(survey.RESULTS, found)
    timed = {key: cost.measured(survey.RESULTS).step(run).seconds for key, run in wanted.items()}
    train(TEACHER)
    train(f"{PAIR}/none/s0", f"{PAIR}/kd/s0")
    rates = cost.measured(survey.RESULTS)
    done = (TEACHER, f"{PAIR}/none/s0", f"{PAIR}/kd/s0")
    for key in done:
        step = rates.step(wanted[key])
        assert step.origin == MEASURED
        # Of two steps, the first of which warms up, on a machine that may be busy.
        assert 0.1 < timed[key] / step.seconds < 3
    assert timing.timed({key: wanted[key] for key in done}, rates) == step_times.StepTimes()


def test_what_is_timed_again_replaces_its_kind_alone_and_a_damaged_file_is_said(tmp_path):
    one, two = (step_times.Timing(device="CPU x", seconds=[seconds]) for seconds in (1.0, 2.0))
    step_times.add(tmp_path, step_times.StepTimes(steps={"a": one, "b": one}))
    step_times.add(tmp_path, step_times.StepTimes(steps={"a": two}, shared={"c": two}))
    assert step_times.read(tmp_path) == step_times.StepTimes(steps={"a": two, "b": one}, shared={"c": two})
    (tmp_path / step_times.FILE).write_text(json.dumps({"steps": {"a": 1}}))
    with pytest.raises(UserError, match=r"step_times\.json is not a StepTimes of this program .*; delete it"):
        step_times.read(tmp_path)
