"""Cross-entropy over all pixels and over the hard ones, beside loops that say the same pixel by pixel."""

import math
import os
import socket

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bcd import distributed
from bcd.config.schema.recipes import Ohem
from bcd.label import IGNORE
from bcd.tasks.cross_entropy import cross_entropy, ohem_cross_entropy


def maps(seed: int, images: int = 2, classes: int = 3, ignored: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of images of 4 x 5 pixels."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, 4, 5, generator=draw, dtype=torch.float64)
    label = torch.randint(0, classes, (images, 4, 5), generator=draw)
    label[torch.rand(label.shape, generator=draw) < ignored] = IGNORE
    return logits, label


def losses_of(logits: torch.Tensor, label: torch.Tensor) -> dict[tuple[int, int, int], float]:
    """Pixel -> -log p of its class, for pixels that have one."""
    found = {}
    for n, y, x in torch.cartesian_prod(*map(torch.arange, label.shape)).tolist():
        if label[n, y, x] != IGNORE:
            scores = logits[n, :, y, x].tolist()
            found[n, y, x] = math.log(sum(map(math.exp, scores))) - scores[label[n, y, x]]
    return found


def hard_pixels(logits, label, threshold, min_kept) -> dict[tuple[int, int, int], float]:
    """The definition as loops: all that are unsure, then the next hardest until there are enough, ties with them."""
    ranked = sorted(losses_of(logits, label).items(), key=lambda item: -item[1])
    taken: dict[tuple[int, int, int], float] = {}
    for pixel, loss in ranked:
        unsure = math.exp(-loss) < threshold
        if unsure or len(taken) < min_kept * len(label) or math.isclose(loss, min(taken.values()), rel_tol=1e-9):
            taken[pixel] = loss
    return taken


@settings(deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 3), st.floats(0, 1), st.integers(1, 25), st.sampled_from([0.0, 0.2, 0.9]))
def test_it_is_the_mean_over_the_pixels_that_a_loop_takes(seed, images, threshold, min_kept, ignored):
    logits, label = maps(seed, images, ignored=ignored)
    logits = logits.float().requires_grad_()
    found = ohem_cross_entropy(logits, label, threshold, min_kept)
    found.backward()
    taken = hard_pixels(logits.detach().double(), label, threshold, min_kept)
    assert found.item() == pytest.approx(sum(taken.values()) / max(1, len(taken)), rel=1e-4, abs=1e-6)
    assert {tuple(p) for p in logits.grad.abs().sum(1).nonzero().tolist()} == set(taken)


def test_the_threshold_decides_where_enough_pixels_are_unsure():
    # Class 0 of two has the probabilities .9, .6, .5, .2; two lie below .55.
    chance = torch.tensor([0.9, 0.6, 0.5, 0.2])
    logits = torch.stack([chance.log(), (1 - chance).log()])[None, :, None, :]
    label = torch.zeros(1, 1, 4, dtype=torch.int64)

    def mean(*taken: float) -> float:
        return pytest.approx(-sum(map(math.log, taken)) / len(taken), rel=1e-5)

    assert ohem_cross_entropy(logits, label, 0.55, 1).item() == mean(0.5, 0.2)
    assert ohem_cross_entropy(logits, label, 0.55, 3).item() == mean(0.6, 0.5, 0.2)
    assert ohem_cross_entropy(logits, label, 0.0, 1).item() == mean(0.2)
    assert ohem_cross_entropy(logits, label, 0.0, 9).item() == mean(0.9, 0.6, 0.5, 0.2)
    assert ohem_cross_entropy(logits, label, 1.0, 1).item() == mean(0.9, 0.6, 0.5, 0.2)


def test_pixels_that_tie_with_the_last_one_are_taken_too():
    logits = torch.zeros(1, 2, 2, 3)
    logits[0, 0, 0, 0] = 3.0  # the one pixel that is sure of its class, 0
    logits.requires_grad_()
    label = torch.zeros(1, 2, 3, dtype=torch.int64)
    found = ohem_cross_entropy(logits, label, 0.1, 2)
    found.backward()
    assert found.item() == pytest.approx(math.log(2))
    assert (logits.grad[0, 0] != 0).tolist() == [[False, True, True], [True, True, True]]


def test_images_are_ranked_together():
    """Two pixels an image: all four may lie in the image that is wrong everywhere."""
    logits = torch.zeros(2, 2, 1, 4)
    logits[0, 0], logits[1, 1] = 4.0, 4.0
    label = torch.zeros(2, 1, 4, dtype=torch.int64)
    assert ohem_cross_entropy(logits, label, 0.5, 2).item() == pytest.approx(4 + math.log1p(math.exp(-4)), rel=1e-5)


@pytest.mark.parametrize("min_kept", [1, 20])
def test_all_pixels_ignored_are_zero_with_a_gradient(min_kept):
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for loss in (
        cross_entropy(logits, torch.full((2, 4, 5), IGNORE)),
        ohem_cross_entropy(logits, torch.full((2, 4, 5), IGNORE), 0.7, min_kept),
    ):
        loss.backward()
        assert loss.item() == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_not_left_out(bad):
    logits, label = maps(0, ignored=0.0)
    logits[0, :, 1, 1] = bad
    assert not math.isfinite(ohem_cross_entropy(logits, label, 0.7, 3).item())


def test_all_pixels_of_a_mean_where_every_pixel_is_wanted():
    logits, label = maps(3)
    assert ohem_cross_entropy(logits, label, 0.7, 20).item() == pytest.approx(cross_entropy(logits, label).item())


def test_the_default_is_that_of_mmsegmentations_configurations():
    assert Ohem() == Ohem(threshold=0.7, min_kept=100_000)


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.9, 1), (0.3, 6), (0.0, 3), (0.3, 20)])
def test_two_processes_take_the_pixels_that_one_takes(tmp_path, in_child, threshold, min_kept):
    """Each process has one image of two, with another number of known pixels."""
    logits, label = maps(5)
    label[1, 2:] = IGNORE
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    def rank(number: int) -> None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(number), "WORLD_SIZE": "2"}
        distributed.start()
        mine = logits[number :: distributed.world()].float().requires_grad_()
        loss = ohem_cross_entropy(mine, label[number::2], threshold, min_kept)
        loss.backward()
        torch.save({"loss": loss.detach(), "gradient": mine.grad}, tmp_path / f"{number}.pt")
        distributed.finish()

    waits = [in_child(lambda number=number: rank(number))[1] for number in range(2)]
    assert [wait() for wait in waits] == [0, 0]
    parts = [torch.load(tmp_path / f"{number}.pt") for number in range(2)]
    whole = logits.float().requires_grad_()
    loss = ohem_cross_entropy(whole, label, threshold, min_kept)
    loss.backward()
    # Each is scaled for the mean over processes that DDP takes.
    torch.testing.assert_close((parts[0]["loss"] + parts[1]["loss"]) / 2, loss.detach())
    torch.testing.assert_close(torch.cat([part["gradient"] for part in parts]) / 2, whole.grad)
