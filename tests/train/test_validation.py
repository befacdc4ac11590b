"""Evaluations while a model trains: curves on validation images that no result depends on."""

import os
import shutil
import signal
from dataclasses import replace

import pytest
from support.smoke import TEACHER, folder, renamed, result_of, runs, same, say, train

from bcd.errors import UserError
from bcd.report.page.curves import curve
from bcd.runs.resolve import overridden
from bcd.train import history, job
from bcd.train.signals import Stopped

STUDENTS = {
    "semantic": ("semantic/scenes-smoke/smoke-student-from-smoke-teacher/pbd/s0", TEACHER, "miou"),
    "instance": (
        "instance/scenes-smoke/smoke-maskrcnn-from-smoke-maskrcnn/kd/s0",
        "instance/scenes-smoke/smoke-maskrcnn/none/s0",
        "ap_mask",
    ),
}


def watched(key: str, every: int = 1):
    run = runs()[key]
    return renamed(overridden(run, {"recipe.runtime.validation": {"every": every, "images": 2}}), key)


@pytest.mark.parametrize("task", STUDENTS)
def test_no_result_depends_on_them(project, task):
    key, teacher, metric = STUDENTS[task]
    train(runs()[teacher])
    plain = next(iter(train(runs()[key]).values()))
    lines = (folder(plain) / history.FILE).read_bytes()
    assert not (folder(plain) / history.VALIDATION).exists() and not curve(folder(plain), history.VALIDATION)["steps"]
    shutil.rmtree(folder(plain))
    seen = next(iter(train(watched(key)).values()))
    assert same(seen, plain) and seen.store == plain.store
    assert (folder(seen) / history.FILE).read_bytes() == lines
    found = history.read(folder(seen), history.VALIDATION)
    assert [line["step"] for line in found] == list(range(1, len(found) + 1)) and len(found) >= 2
    assert all(0 <= line[metric] <= 100 for line in found)


def test_a_stop_loses_none_and_doubles_none(project):
    key, teacher, _ = STUDENTS["semantic"]
    train(runs()[teacher])
    undisturbed = next(iter(train(watched(key)).values()))
    lines = (folder(undisturbed) / history.VALIDATION).read_bytes()
    shutil.rmtree(folder(undisturbed))

    def stop_after_the_first_step(text: str) -> None:
        if text.startswith("step 1/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        job.run_group("smoke", [watched(key)], stop_after_the_first_step)
    job.run_group("smoke", [watched(key)], say)
    assert (folder(result_of(runs()[key])) / history.VALIDATION).read_bytes() == lines


def test_a_dataset_without_the_split_is_refused_when_params_are_read():
    run = runs()[STUDENTS["semantic"][0]]
    data = run.training.data
    without = data.model_copy(update={"splits": {"train": 12, "test": 6}})
    with pytest.raises(UserError, match="has no split 'val'; leave it out"):
        overridden(
            replace(run, training=replace(run.training, data=without)), {"recipe.runtime.validation": {"every": 2}}
        )
