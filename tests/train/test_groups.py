"""Which runs a training job holds, and how many of them at once."""

from dataclasses import replace
from pathlib import Path

import pytest
from support import smoke
from support.project import ROOT

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.runs import expand
from bcd.runs.resolve import overridden
from bcd.runs.run import Run
from bcd.train import job

PAIR = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"


def runs_with(learners: int | None) -> dict[str, Run]:
    params = load_params(ROOT / "params")
    runs = expand.suite_runs(params, load_suite("smoke", ROOT / "params"))
    return {
        key: replace(one, runtime=one.runtime.model_copy(update={"learners": learners})) for key, one in runs.items()
    }


@pytest.mark.parametrize("learners, sizes", [(1, [1] * 9), (2, [2, 2, 2, 2, 1]), (4, [4, 4, 1]), (8, [8, 1])])
def test_a_group_is_split_into_jobs_of_at_most_so_many_students(learners, sizes):
    whole, jobs = expand.groups(runs_with(None)), expand.groups(runs_with(learners))
    parts = {address: job for address, job in jobs.items() if address.startswith(f"{PAIR}/s1")}
    assert list(parts) == [f"{PAIR}/s1-{i}" for i in range(1, len(sizes) + 1)]
    assert [len(job) for job in parts.values()] == sizes
    assert [one.key for job in parts.values() for one in job] == [one.key for one in whole[f"{PAIR}/s1"]]


def test_a_group_that_fits_keeps_its_address():
    assert expand.groups(runs_with(9)).keys() == expand.groups(runs_with(None)).keys()


def test_one_training_under_two_names_stays_in_one_job():
    runs = {key: one for key, one in runs_with(2).items() if one.group == f"{PAIR}/s0"}
    names = list(runs)
    runs[names[-1]] = replace(runs[names[-1]], training=runs[names[0]].training)
    first, *others = expand.groups(runs).values()
    assert [one.key for one in first] == [names[0], names[-1], names[1]]
    assert [len(job) for job in others] == [2, 2, 2]


def test_the_limit_is_a_part_of_the_recipe_that_changes_no_run(project):
    path = Path("params/recipes.yaml")
    head, found, rest = path.read_text().partition("\nsmoke:\n")
    path.write_text(head + found + rest.replace("{checkpoint_every: 1}", "{checkpoint_every: 1, learners: 4}", 1))
    runs = expand.suite_runs(load_params(), load_suite("smoke"))
    before = runs_with(None)
    assert {key: one.fingerprint for key, one in runs.items()} == {k: one.fingerprint for k, one in before.items()}
    assert len(expand.groups(runs)) == len(expand.groups(before)) + 2 * 2


def test_a_training_says_at_once_what_it_does_and_early_how_far_it_is(project):
    """With fifty steps between two words of a log, and fewer in all."""
    said: list[str] = []
    settings = {"recipe.steps": 3, "recipe.log_every": 50}
    wanted = [overridden(smoke.runs()[f"{PAIR}/{method}/s0"], settings) for method in ("none", "none", "kd")]
    teacher = smoke.runs()[smoke.TEACHER]
    job.run_group("smoke", [teacher], said.append)
    assert said[0].startswith(f"{teacher.key}: 2 steps, log results/store/") and said[0].endswith("/history.jsonl")
    assert Path(said[0].rpartition(" ")[2]).is_file()
    said.clear()
    job.run_group("smoke", wanted, said.append)
    assert [line.partition(": ")[0] for line in said[:2]] == [wanted[0].key, wanted[2].key]
    (progress,) = [line for line in said if line.startswith("step ")]
    assert progress.startswith("step 1/3, 2 learners, ")
    said.clear()
    job.run_group("smoke", wanted, said.append)
    assert not said, "what is finished is not trained again"
