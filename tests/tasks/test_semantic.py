"""The semantic task: its losses, and whole-image and sliding prediction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.project import ROOT
from support.smoke import TEACHER
from torch import nn

from bcd.config.load import load_params
from bcd.config.schema.recipes import Ohem, Sliding
from bcd.config.suites import load_suite
from bcd.data.semantic.stream import Batch
from bcd.runs.expand import suite_runs
from bcd.tasks.semantic import SemanticTask, predict


class Brightness(nn.Module):
    """Two classes by the sign of the first channel: a prediction that does not depend on the window."""

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": torch.cat([-image[:, :1], image[:, :1]], 1)}


@pytest.mark.parametrize("size", [(40, 56), (32, 32), (33, 47), (20, 24)])
@pytest.mark.parametrize("stride", [[32, 32], [16, 24], [7, 11]])
def test_sliding_covers_every_pixel_of_any_size(size, stride):
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    _, whole = predict(Brightness(), image, size, None)
    assert torch.equal(predict(Brightness(), image, size, Sliding(crop=[32, 32], stride=stride))[1], whole)
    assert torch.equal(whole, (image[:, 0] > 0).long())


def test_overlapping_windows_are_averaged():
    class Window(nn.Module):
        """Class 0 scores -1 to 1 from the window's left to its right, class 1 scores 0."""

        def forward(self, image):
            centred = torch.linspace(-1, 1, image.shape[3]).expand(image.shape[0], 1, *image.shape[2:])
            return {"logits": torch.cat([centred, torch.zeros_like(centred)], 1)}

    # Windows 0..3 and 2..5: pixel 2 averages 1/3 and -1, pixel 3 averages 1 and -1/3.
    found = predict(Window(), torch.zeros(1, 3, 2, 6), (2, 6), Sliding(crop=[2, 4], stride=[2, 2]))[1][0, 0]
    assert found.tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("sliding", [None, Sliding(crop=[16, 16], stride=[12, 12])])
def test_a_resized_image_is_labelled_at_the_size_of_its_label(sliding):
    """The logits are enlarged, not the classes: between columns of logit 1 and -3 the border lies a quarter in."""
    image = torch.full((1, 3, 16, 20), 1.0)
    image[..., 10:] = -3.0
    _, found = predict(Brightness(), image, (64, 80), sliding)
    assert found.shape == (1, 64, 80)
    # Centres of columns 9 and 10 lie at 38 and 42 of 80; zero is a quarter of the way between them.
    assert (found[0, :, :39] == 1).all() and (found[0, :, 39:] == 0).all()


def task(aux_weight: float = 0.4, ohem: Ohem | None = None) -> SemanticTask:
    training = suite_runs(load_params(ROOT / "params"), load_suite("smoke", ROOT / "params"))[TEACHER].training
    data = training.data.model_copy(update={"classes": ["a", "b"]})
    recipe = training.recipe.model_copy(update={"aux_weight": aux_weight, "ohem": ohem})
    return SemanticTask(replace(training, data=data, recipe=recipe), ROOT / "data", in_memory=False)


class Constant(nn.Module):
    """Fixed logits at image size, and the same from an auxiliary head."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.logits, "aux": self.logits}


def test_task_loss_is_the_mean_over_labelled_pixels_and_the_auxiliary_share():
    logits = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1).repeat(2, 1, 1, 3)
    label = torch.tensor([[[0, 1, 255]], [[255, 255, 255]]])
    model = Constant(logits)
    losses = task().losses(model, Batch(torch.zeros(2, 3, 1, 3), label, label != 255, 1, ["a", "b"]))
    hand = (np.log1p(np.exp(-2)) + np.log1p(np.exp(2))) / 2
    assert losses["task"].item() == pytest.approx(hand)
    assert losses["aux"].item() == pytest.approx(0.4 * hand)
    sum(losses.values()).backward()
    assert model.logits.grad[1].abs().sum() == 0 and model.logits.grad[0, :, 0, 2].abs().sum() == 0


def test_online_mining_leaves_out_easy_pixels_of_both_heads_and_unlabelled_images():
    logits = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1).repeat(2, 1, 1, 3)
    label = torch.tensor([[[0, 1, 255]], [[255, 255, 255]]])
    model = Constant(logits)
    batch = Batch(torch.zeros(2, 3, 1, 3), label, label != 255, 1, ["a", "b"])
    losses = task(ohem=Ohem(threshold=0.5, min_kept=1)).losses(model, batch)
    assert losses["task"].item() == pytest.approx(np.log1p(np.exp(2)))
    assert losses["aux"].item() == pytest.approx(0.4 * np.log1p(np.exp(2)))
    sum(losses.values()).backward()
    assert model.logits.grad.abs().sum(1).nonzero().tolist() == [[0, 0, 1]]


def test_a_batch_without_any_label_gives_zero_and_no_nan():
    label = torch.full((1, 2, 2), 255)
    model = Constant(torch.randn(1, 2, 2, 2))
    losses = task().losses(model, Batch(torch.zeros(1, 3, 2, 2), label, label == 255, 1, ["a"]))
    sum(losses.values()).backward()
    assert losses["task"].item() == 0 and torch.isfinite(model.logits.grad).all()
