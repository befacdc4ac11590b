"""Class weights: the rules by hand, the weighted mean beside torch's, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.project import ROOT
from support.smoke import runs, train

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.label import IGNORE
from bcd.runs.expand import suite_runs
from bcd.runs.resolve import overridden
from bcd.runs.spec import RunSpec
from bcd.tasks.class_weights import class_weights
from bcd.tasks.cross_entropy import cross_entropy, ohem_cross_entropy
from bcd.tasks.semantic import SemanticTask

NAMES = ["road", "pole", "sky"]
TEACHER = "semantic/scenes-smoke/smoke-teacher/none/s0"


def label_map(*counts: int, ignored: int = 0) -> np.ndarray:
    values = [value for value, count in enumerate(counts) for _ in range(count)] + [IGNORE] * ignored
    return np.array(values, np.uint8).reshape(1, -1)


def test_rules_by_hand():
    """Shares 1/2, 1/10 and 2/5 over two images; ignored pixels do not count."""
    labels = [label_map(5, 1, 0, ignored=7), label_map(0, 0, 4)]
    softened = class_weights("sqrt_inverse", labels, NAMES)
    assert softened.tolist() == pytest.approx([math.sqrt(0.8), 2.0, 1.0])
    bounded = class_weights("enet", labels, NAMES)
    assert bounded.tolist() == pytest.approx([1 / math.log(1.52), 1 / math.log(1.12), 1 / math.log(1.42)])
    assert class_weights([1.0, 5.0, 0.5], [], NAMES).tolist() == [1.0, 5.0, 0.5]


def test_a_class_without_pixels_and_a_list_of_another_length_are_refused():
    with pytest.raises(
        UserError, match=r"'enet' weighs a class by its pixels, and no labelled .* shows pole, sky; write"
    ):
        class_weights("enet", [label_map(3)], NAMES)
    run = runs()[TEACHER]
    with pytest.raises(UserError, match=r"class_weights has 2 numbers for \d classes .*; write one for each"):
        overridden(run, {"recipe.class_weights": [1.0, 2.0]})
    with pytest.raises(UserError, match="class_weights"):
        overridden(run, {"recipe.class_weights": "inverse"})
    with pytest.raises(UserError, match="class_weights"):
        overridden(run, {"recipe.class_weights": [1.0, 0.0]})


def test_the_weighted_mean_is_torchs_and_falls_back_to_zero():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=draw)
    label = torch.randint(0, 3, (2, 4, 5), generator=draw)
    label[0, :2] = IGNORE
    weights = torch.tensor([0.01, 0.002, 0.03])  # a sum over few pixels may be below 1
    expected = F.cross_entropy(logits, label, weights, ignore_index=IGNORE)
    torch.testing.assert_close(cross_entropy(logits, label, weights), expected)
    few = logits[:, :, :1, :2], label[:, :1, :2]
    torch.testing.assert_close(cross_entropy(*few, weights), F.cross_entropy(*few, weights, ignore_index=IGNORE))
    assert cross_entropy(logits, torch.full_like(label, IGNORE), weights).item() == 0
    every = ohem_cross_entropy(logits, label, 1.0, 1, weights)
    torch.testing.assert_close(every, expected)


def test_mined_pixels_are_chosen_without_weights_and_averaged_with_them():
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]]).T.reshape(1, 2, 1, 3)
    label = torch.tensor([[[1, 1, 0]]])
    losses = [math.log1p(math.exp(margin)) for margin in (2, 1, 3)]
    found = ohem_cross_entropy(logits, label, 0.0, 2, torch.tensor([1.0, 100.0]))
    assert found.item() == pytest.approx((100 * losses[0] + losses[2]) / 101)


def test_they_are_in_the_spec_where_there_are_any_and_change_the_result(project):
    run = runs()[TEACHER]
    weighed = overridden(run, {"recipe.class_weights": "sqrt_inverse"})
    plain, content = (one.spec("0" * 64, None).to_json() for one in (run, weighed))
    assert "class_weights" not in plain["recipe"] and content["recipe"]["class_weights"] == "sqrt_inverse"
    assert RunSpec.from_json(content).training.recipe == weighed.training.recipe
    first, second = (next(iter(train(one).values())).weights_sha256 for one in (run, weighed))
    assert first != second


def test_only_labelled_images_are_counted():
    """A variant with few labels must not know the classes of the others."""
    training = suite_runs(load_params(ROOT / "params"), load_suite("smoke", ROOT / "params"))[TEACHER].training
    recipe = training.recipe.model_copy(update={"class_weights": "enet"})
    few = training.data.model_copy(update={"labelled": 1, "classes": NAMES})
    task = SemanticTask(replace(training, data=few, recipe=recipe), ROOT / "data", in_memory=False)
    images = [label_map(2, 1, 1), label_map(90, 5, 5)]

    class Two:
        def __len__(self):
            return 2

        def read(self, index):
            return None, images[index], ""

    task._splits["train"] = Two()
    expected = class_weights("enet", images[:1], NAMES)
    assert task._class_weights(torch.device("cpu")).tolist() == pytest.approx(expected.tolist())
