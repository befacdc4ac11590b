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
        (0.4551, "measured 45.51: they differ by 0.01, within the tolerance of 0.1"),
        (0.456, "differ by 0.10, within"),
        (0.40, "differ by 5.50, MORE than the tolerance of 0.1; this is not the published model as it was measured"),
    ],
)
def test_it_stands_beside_what_is_measured(loaded, measured, said):
    run, score = loaded
    (sentence,) = against_published(run, [score], {"miou": measured})
    assert sentence.startswith("published miou 45.50 (Paper 2), measured") and said in sentence


def test_only_numbers_of_these_weights_on_this_data_are_shown(loaded):
    run, score = loaded
    elsewhere = [score.model_copy(update={"dataset": "other"}), score.model_copy(update={"split": "other"})]
    assert against_published(run, elsewhere, {"miou": 0.5}) == []
    assert against_published(runs()[TEACHER], [score], {"miou": 0.5}) == []  # which is trained


def test_an_unknown_metric_is_said(loaded):
    run, score = loaded
    (sentence,) = against_published(run, [score.model_copy(update={"metric": "miuo"})], {"miou": 0.5})
    assert "no such metric was measured; did you mean 'miou'?" in sentence


def test_it_changes_no_runs_address(project):
    plain = parse_model(FIELDS | {"pretrained": "w.pth"}, "m")
    score = {"dataset": "scenes", "split": "test", "metric": "miou", "value": 50.0, "source": "Paper"}
    noted = parse_model(FIELDS | {"pretrained": "w.pth", "published": [score]}, "m")
    assert noted.published and noted.model_dump() == plain.model_dump()


def test_random_weights_have_no_published_number():
    score = {"dataset": "scenes", "split": "test", "metric": "miou", "value": 50.0, "source": "Paper"}
    with pytest.raises(UserError, match="published: it is of weights that are loaded whole; name their file"):
        parse_model(FIELDS | {"published": [score]}, "m")
