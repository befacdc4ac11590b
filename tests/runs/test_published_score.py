"""A loaded model's published number beside the measured one."""

from dataclasses import replace

import pytest
from support.smoke import TEACHER, runs

from bcd.config.load import parse_model
from bcd.config.schema.models import PublishedScore
from bcd.errors import UserError
from bcd.runs.published import against_published

FIELDS = {"backbone": "light", "head": "light", "channels": 8, "widths": [8] * 4, "depths": [1] * 4}


@pytest.fixture
def loaded(project):
    """The smoke suite's teacher as one that is not trained, and a number of it."""
    run = runs()[TEACHER]
    recipe = run.training.recipe.model_copy(update={"steps": 0})
    run = replace(run, training=replace(run.training, recipe=recipe))
    score = {
        "dataset": run.dataset,
        "split": run.evaluation.split,
        "metric": "miou",
        "value": 45.5,
        "source": "Paper 2",
    }
    return run, PublishedScore(**score)


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (45.51, "measured 45.51: they differ by 0.01, within the tolerance of 0.1"),
        (45.6, "differ by 0.10, within"),
        (40.0, "differ by 5.50, MORE than the tolerance of 0.1"),
        (float("nan"), "measured n/a: they differ by n/a, MORE than the tolerance of 0.1"),
    ],
)
def test_it_stands_beside_what_is_measured(loaded, measured, said):
    run, score = loaded
    (found,) = against_published(run, [score], {"miou": measured})
    assert found.sentence.startswith("published miou 45.50 (Paper 2), measured") and said in found.sentence
    assert found.beyond == ("MORE" in said)


def test_only_numbers_of_these_weights_on_this_data_are_shown(loaded):
    run, score = loaded
    elsewhere = [score.model_copy(update={"dataset": "other"}), score.model_copy(update={"split": "other"})]
    assert len(against_published(run, [score, *elsewhere], {"miou": 50.0})) == 1
    (found,) = against_published(run, elsewhere, {"miou": 50.0})
    where = "scenes-smoke's split"
    assert found.sentence.endswith(f"are of other's split 'test', {where} 'other', and none of {where} 'test'")
    assert not found.beyond
    assert against_published(run, [], {"miou": 50.0}) == []
    assert against_published(runs()[TEACHER], [score], {"miou": 50.0}) == []  # which is trained


def test_a_metric_that_is_not_measured_is_said(loaded):
    run, score = loaded
    (found,) = against_published(run, [score.model_copy(update={"metric": "ap_mask"})], {"ap": 50.0})
    assert "no such metric was measured" in found.sentence and not found.beyond


def test_it_changes_no_runs_address(project):
    plain = parse_model(FIELDS | {"pretrained": "w.pth"}, "m")
    score = {"dataset": "scenes", "split": "test", "metric": "miou", "value": 50.0, "source": "Paper"}
    noted = parse_model(FIELDS | {"pretrained": "w.pth", "published": [score]}, "m")
    assert noted.published and noted.model_dump() == plain.model_dump()


def test_random_weights_have_no_published_number():
    score = {"dataset": "scenes", "split": "test", "metric": "miou", "value": 50.0, "source": "Paper"}
    with pytest.raises(UserError, match="published: it is of weights that are loaded whole; name their file"):
        parse_model(FIELDS | {"published": [score]}, "m")
