"""The time that a build still takes, against numbers that can be had by hand."""

import pytest

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.planning.cost import Rate, Rates, kind_of_run
from bcd.planning.remaining import Job, seconds_left
from bcd.runs.expand import suite_runs

RUNS = [run for run in suite_runs(load_params(), load_suite("smoke")).values() if not run.training.terms]
SEMANTIC = next(run for run in RUNS if run.training.task == "semantic" and run.teacher)
INSTANCE = next(run for run in RUNS if run.training.task == "instance" and run.teacher)


def rates(**seconds: float) -> Rates:
    known = {"semantic": SEMANTIC, "instance": INSTANCE}
    steps = {kind_of_run(known[n].training, False): Rate(s, "measured") for n, s in seconds.items()}
    return Rates(steps, start_seconds=20.0)


def job(run, steps: int, limit: int = 10, cores: int = 1) -> Job:
    return Job(((run, steps),) if steps else (), cores, limit)


def test_jobs_share_the_cores_and_the_longest_is_waited_for():
    jobs = {"a": job(SEMANTIC, 100), "b": job(SEMANTIC, 100), "c": job(SEMANTIC, 100)}
    known = rates(semantic=1.0)
    assert seconds_left(jobs, {}, {}, 1, known) == 360
    assert seconds_left(jobs, {}, {}, 2, known) == 180
    assert seconds_left(jobs, {}, {}, None, known) == 120
    # Two cores each, of which one is there.
    assert seconds_left({"a": job(SEMANTIC, 100, cores=2)}, {}, {}, 1, known) == 120


def test_what_is_done_counts_no_more_and_its_pace_is_that_of_the_rest():
    jobs = {"a": job(SEMANTIC, 100), "b": job(SEMANTIC, 100)}
    assert seconds_left(jobs, {"a": 240.0}, {}, 1, rates(semantic=1.0)) == 240
    assert seconds_left(jobs, {"a": 240.0}, {"b": 0.75}, 1, rates(semantic=1.0)) == 60
    assert seconds_left(jobs, {"a": 120.0, "b": 120.0}, {}, 1, rates(semantic=1.0)) == 0


def test_of_an_unknown_step_the_limit_says_how_jobs_compare():
    jobs = {"a": job(SEMANTIC, 100, limit=10), "b": job(INSTANCE, 100, limit=30)}
    assert seconds_left(jobs, {}, {}, 1, rates(semantic=1.0)) == pytest.approx(120 + 360)
    assert seconds_left(jobs, {}, {}, 1, rates()) is None


def test_a_job_that_trains_nothing_takes_its_start():
    assert seconds_left({"a": job(SEMANTIC, 0)}, {}, {}, 1, rates()) == 20
    assert seconds_left({}, {}, {}, 1, rates()) == 0
