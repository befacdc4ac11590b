"""Losses that stand still are said; those that merely fall, vary, end at 0 or have no weight are not."""

import os
import shutil
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.smoke import folder, renamed, result_of, runs

from bcd.config.schema.methods import WeightedTerm
from bcd.distill.terms import WeightedTerms
from bcd.runs import store
from bcd.runs.record import Standstill
from bcd.runs.resolve import overridden
from bcd.train import job
from bcd.train.signals import Stopped
from bcd.train.standstill import SHORTEST, Streaks, follow, sentence, stands_still


def ended_with(values: list[float], weightless: tuple[str, ...] = ()) -> dict[str, Standstill]:
    """What is found of a training in which the loss `x` had these values, one a step."""
    streaks: Streaks = {}
    for step, value in enumerate(values, 1):
        streaks = follow(streaks, {"x": value}, step)
    return stands_still(streaks, len(values), weightless)


def noisy(count: int, level: float, share: float) -> list[float]:
    return list(level * (1 + share * np.random.default_rng(0).uniform(-1, 1, count)))


def test_a_box_regression_that_died_on_its_way_is_found():
    values = [*noisy(99, 0.8, 0.2), *noisy(151, 1.0, 1e-7)]
    assert ended_with(values)["x"].since == 100
    assert "x stood at 1 from step 100 to the last of 250" in sentence("x", ended_with(values)["x"], 250)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-12, 1e6])
def test_a_loss_that_never_moved_is_found(value):
    assert ended_with([value] * 40) == {"x": Standstill(value=value, since=1)}


@pytest.mark.parametrize(
    "values",
    [
        [*noisy(26, 0.8, 0.2), *[1.0] * 24],  # less than half of the training
        [*[1.0] * 26, *noisy(24, 1.0, 0.02)],  # it came back
        [*[1.0] * 49, 1.1],
        noisy(50, 1.0, 0.01),
        list(np.linspace(1, 0.9, 50)),  # no noise, and a slope
        [*noisy(20, 0.5, 0.2), *[0.0] * 30],  # nothing left to learn
        [0.0, 1e-9] * 25,  # no boxes in every second batch
        [1.0] * (SHORTEST - 1),
        [],
    ],
)
def test_what_moves_ends_at_zero_or_is_short_is_left_alone(values):
    assert ended_with(values) == {}


def test_a_loss_without_a_weight_may_be_zero():
    assert ended_with([0.0] * 40, ("x",)) == {}


@given(st.lists(st.sampled_from([0.0, 1.0, 1.0001, 2.0]), min_size=1, max_size=60))
def test_it_is_found_just_where_the_last_half_has_one_value(values):
    tail = values[len(values) // 2 :] if len(values) >= 2 * SHORTEST else values[-SHORTEST:]
    same = len(tail) >= SHORTEST and max(tail) - min(tail) <= 1e-3
    zero = tail[-1] == 0 and len(set(values)) > 1
    assert bool(ended_with(values)) == (same and not zero)


@pytest.mark.parametrize("warmup", [0, 15])
def test_a_schedule_hides_no_standstill(warmup):
    term = WeightedTerm(term="kd", weight=2.0, schedule="linear", warmup=warmup)
    shapes = {"logits": (1, 2, 2, 2)}
    terms, streaks, weighted = WeightedTerms([term], shapes, shapes), {}, []
    for step in range(1, 41):
        factor = terms.factors(step - 1, 40)["kd"]
        weighted.append(0.7 * factor)
        streaks = follow(streaks, {"kd": weighted[-1] / factor}, step)
    assert ended_with(weighted) == {}
    assert stands_still(streaks, 40)["kd"].since == 1


FCOS = "detection/scenes-smoke/smoke-retinanet/none/s0"
STEPS = 24


def detector(lr: float):
    """A run of a detector whose box regression ends in a ReLU and a loss that is 1 where boxes do not overlap."""
    settings = {"model.head": "fcos", "recipe.lr": lr, "recipe.clip": None, "recipe.warmup": 0, "recipe.steps": STEPS}
    settings |= {"recipe.optimizer.weight_decay": 0.0}
    return renamed(overridden(runs()[FCOS], settings), FCOS)


def train(run) -> list[str]:
    """Train it, and say what was said."""
    said: list[str] = []
    job.run_group("smoke", [run], said.append)
    return [line for line in said if "warning" in line]


def test_a_detector_that_a_learning_rate_killed_says_so(project):
    (warning,) = train(detector(30.0))
    assert "the loss bbox_regression stood at " in warning and f"the last of {STEPS}" in warning
    found = result_of(detector(30.0))
    assert list(found.standing) == ["bbox_regression"] and found.metrics["ap"] == 0
    assert store.record(folder(found)).standing == found.standing


def test_it_is_known_after_a_stop_and_says_the_same(project):
    run = detector(30.0)
    train(run)
    whole = run.file("smoke").read_bytes()
    shutil.rmtree(folder(result_of(run)))
    run.file("smoke").unlink()

    def stop(text: str) -> None:
        if text.startswith(f"step {STEPS - 4}/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        job.run_group("smoke", [run], stop)
    assert len(train(run)) == 1 and run.file("smoke").read_bytes() == whole
    assert store.record(folder(result_of(run))).resumes == 1


def test_a_detector_that_learns_is_left_alone(project):
    assert train(detector(0.005)) == []
    found = result_of(detector(0.005))
    assert not found.standing
    for file in (detector(0.005).file("smoke"), folder(found) / "record.json"):
        assert "standing" not in file.read_text()


def test_an_auxiliary_head_without_a_weight_is_left_alone(project):
    key = "semantic/scenes-smoke/smoke-teacher/none/s0"
    settings = {"model.aux_channels": 8, "recipe.aux_weight": 0.0, "recipe.steps": 2 * SHORTEST}
    run = renamed(overridden(runs()[key], settings), key)
    assert train(run) == [] and not result_of(run).standing
