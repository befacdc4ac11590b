"""The losses on features: values by hand, masking, and where the official codes are not followed."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.largest_tensor import LargestTensor
from support.parity import GOLDEN, Golden

from bcd.errors import UserError
from bcd.losses import pairwise
from bcd.losses.attention import at
from bcd.losses.dsd import csd, psd
from bcd.losses.embedding import embed
from bcd.losses.hint import fitnet
from bcd.losses.nst import nst
from bcd.losses.pairwise import mean_squared_gap, skd
from bcd.losses.pkd import pkd
from bcd.losses.pkt import pkt
from bcd.losses.rkd import rkd
from bcd.losses.spkd import spkd


def psd_of_halves(student, teacher, *, valid=None):
    """psd between the first and the last two channels of one map, as between two taps."""
    halves = [[x[:, :2], x[:, 2:]] for x in (student, teacher)]
    return psd(*halves, valid=None if valid is None else [valid, valid])


# loss, options
LOSSES = {
    "at": (at, {}),
    "at-p4": (at, {"p": 4.0}),
    "fitnet": (fitnet, {}),
    "psd": (psd_of_halves, {}),
    "csd": (csd, {"temperature": 0.5}),
    "skd": (skd, {}),
    "skd-scale": (skd, {"scale": 0.4}),
    "skd-official": (skd, {"scale": 0.4, "official": True}),
    "spkd": (spkd, {}),
    "rkd": (rkd, {}),
    "nst": (nst, {}),
    "pkt": (pkt, {}),
    "pkd": (pkd, {}),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def row(*pixels):
    """A (1, C, 1, W) map from one tuple of channels per pixel."""
    return torch.tensor(pixels, dtype=torch.float64).T[None, :, None, :]


def images(*vectors):
    """A batch of 1x1 maps from one tuple of channels per image."""
    return torch.tensor(vectors, dtype=torch.float64)[:, :, None, None]


def batch(n=4, c=4, h=5, w=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(n, c, h, w, generator=g, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.rand(n, h, w, generator=g) > 0.3


def run(name, student, teacher, valid=None):
    loss, options = LOSSES[name]
    student = student.detach().requires_grad_()
    value = loss(student, teacher, valid=valid, **options)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


@every_loss
@pytest.mark.parametrize("poison", [-1e30, math.inf, math.nan])
def test_invalid_pixels_do_not_count(name, poison):
    student, teacher, valid = batch()
    value, gradient = run(name, student, teacher, valid)
    hole = ~valid.unsqueeze(1)
    again, gradient_again = run(name, student.masked_fill(hole, poison), teacher.masked_fill(hole, -poison), valid)
    assert value > 1e-3 and value == again and torch.equal(gradient, gradient_again)
    assert gradient.masked_select(hole).eq(0).all()
    assert value != run(name, student, teacher)[0]


@every_loss
def test_images_without_valid_pixels_do_not_count(name):
    student, teacher, valid = batch()
    value, gradient = run(name, student[:3], teacher[:3], valid[:3])
    valid[3] = False
    again, gradient_again = run(name, student, teacher, valid)
    torch.testing.assert_close(again, value, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(gradient_again[:3], gradient, rtol=1e-10, atol=1e-15)
    nothing, gradient = run(name, student, teacher, valid & False)
    assert nothing == 0 and gradient.eq(0).all()


@every_loss
def test_one_valid_pixel_and_dead_maps_are_finite(name):
    student, teacher, valid = (x.float() if x.is_floating_point() else x for x in batch())
    one = torch.zeros_like(valid)
    one[1, 2, 3] = True
    for s, mask in ((student, one), (0 * student, valid), (1e15 * student, valid)):
        value, gradient = run(name, s, teacher, mask)
        assert value.isfinite() and gradient.isfinite().all()


def test_at_by_hand():
    teacher, student = row((1, 1), (0, 0)), row((3, 0), (0, 3))  # attention (1, 0) and (1, 1) / sqrt(2)
    assert at(student, teacher).item() == pytest.approx(1 - 1 / math.sqrt(2), rel=1e-12)
    uneven = row((1,), (2,))  # attention (1, 2^p) / sqrt(1 + 4^p)
    for p in (1, 2, 4):
        first = 1 / math.sqrt(1 + 4**p)
        expected = ((1 - first) ** 2 + (2**p * first) ** 2) / 2
        assert at(uneven, teacher, p=p).item() == pytest.approx(expected, rel=1e-12)


def test_attention_does_not_overflow():
    student, teacher, valid = batch()
    for p in (2.0, 4.0):
        large = at(1e15 * student.float(), 1e15 * teacher.float(), valid=valid, p=p)
        assert large.item() == pytest.approx(at(student, teacher, valid=valid, p=p).item(), rel=1e-5)
    with pytest.raises(UserError, match="at least 1"):
        at(student, teacher, p=0.5)


def test_fitnet_by_hand():
    assert fitnet(row((1, 2), (3, 4)), row((1, 0), (0, 4))).item() == (4 + 9) / 4


def test_psd_by_hand():
    first, second = row((5,), (0,)), row((0,), (2,))
    # Residual attention (-1, 1) / sqrt(2) against its opposite.
    assert psd([first, second], [second, first]).item() == pytest.approx(2.0, rel=1e-12)
    assert psd([first, second, first], [second, first, second]).item() == pytest.approx(4 / 3, rel=1e-12)
    with pytest.raises(UserError, match="at least two taps"):
        psd([first], [second])


def test_psd_averages_finer_taps_over_valid_pixels():
    student, teacher, _ = batch(h=4, w=6)
    coarse = [x.abs()[:, :3] for x in (student, teacher)]
    # Equal magnitudes in each 2x2 cell, so that the averaged energy is that of any of its pixels.
    fine = [F.interpolate(x, scale_factor=2, mode="nearest") for x in (student, teacher)]
    expected = psd([student, coarse[0]], [teacher, coarse[1]])
    torch.testing.assert_close(psd([fine[0], coarse[0]], [fine[1], coarse[1]]), expected)
    valid = torch.ones(4, 8, 12, dtype=torch.bool)
    valid[:, ::2] = False
    half = [x.masked_fill(~valid.unsqueeze(1), math.nan) for x in fine]
    every = torch.ones(4, 4, 6, dtype=torch.bool)
    torch.testing.assert_close(psd([half[0], coarse[0]], [half[1], coarse[1]], valid=[valid, every]), expected)
    valid[:, :2] = False  # the first row of cells has no pixel left at the finer tap
    below = [x[:, :, 1:] for x in (student, coarse[0], teacher, coarse[1])]
    torch.testing.assert_close(
        psd([half[0], coarse[0]], [half[1], coarse[1]], valid=[valid, every]), psd(below[:2], below[2:])
    )


def test_csd_by_hand():
    teacher = 4 * row((math.log(3),), (math.log(3),), (0,), (0,)).repeat(1, 1, 2, 1)  # phi = (3/4, 1/4) over two cells
    assert csd(0 * teacher, teacher).item() == pytest.approx((10 / 16 - 1 / 2) ** 2, rel=1e-12)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden data not found")
def test_the_two_parts_of_dsd():
    golden = Golden("dsd_cirkd")
    student, teacher = golden.list("student"), golden.list("teacher")
    assert psd(student, teacher).item() == pytest.approx(golden.data["loss_psd"].item(), rel=1e-9)
    assert csd(student[-1], teacher[-1]).item() == pytest.approx(golden.data["loss_csd"].item(), rel=1e-9)


def test_spkd_by_hand():
    alike, apart = images((1, 0), (2, 0)), images((1, 0), (0, 3))
    # Rows (1, 2) / sqrt(5) of the one against unit rows of the other.
    expected = ((1 - 1 / math.sqrt(5)) ** 2 + 4 / 5 + 1 / 5 + (1 - 2 / math.sqrt(5)) ** 2) / 4
    assert spkd(alike, apart).item() == pytest.approx(expected, rel=1e-12)
    assert spkd(alike[:1], apart[1:]).item() == 0


def test_embedding_is_the_average_of_valid_pixels():
    features, _, valid = batch()
    valid[1] = False
    vectors = embed(features.masked_fill(~valid.unsqueeze(1), 0), valid)
    assert vectors.shape == (3, 4)
    torch.testing.assert_close(vectors[1], features[2][:, valid[2]].mean(1))


def test_rkd_by_hand():
    line, triangle = images((0, 0), (1, 0), (2, 0)), images((0, 0), (1, 0), (0.5, math.sqrt(0.75)))
    # Distances (1, 1, 2) over their mean 4/3 against 1; cosines (1, -1, 1) against 1/2, of which one is off by 3/2.
    assert rkd(line, triangle, distance_weight=1, angle_weight=0).item() == pytest.approx(
        (4 * 0.25**2 + 2 * 0.5**2) / 2 / 9, rel=1e-9
    )
    angles = 2 * (0.125 + (1.5 - 0.5) + 0.125) / 27
    assert rkd(line, triangle, distance_weight=0, angle_weight=1).item() == pytest.approx(angles, rel=1e-9)


def test_rkd_needs_three_images():
    student, teacher, _ = batch()
    for n in (1, 2):
        value, gradient = run("rkd", student[:n], teacher[:n])
        assert value < 1e-15 and gradient.abs().max() < 1e-12
    twins = student[[0, 0, 1]]
    value, gradient = run("rkd", twins, teacher[:3])
    assert value.isfinite() and gradient.abs().max() < 1e9


def test_pkt_by_hand():
    alike, apart = images((1, 0), (2, 0)), images((1, 0), (0, 3))
    # Neighbours with probability (1/2, 1/2) for the teacher and (2/3, 1/3) for the student.
    assert pkt(apart, alike).item() == pytest.approx(math.log(9 / 8) / 4, rel=1e-5)
    assert pkt(apart, apart).item() == 0
    assert pkt(apart[:1], alike[1:]).item() == 0


def test_nst_by_hand():
    left, right, both = row((1,), (0,)), row((0,), (7,)), row((2,), (2,))
    assert nst(left, right).item() == pytest.approx(2.0, rel=1e-12)
    assert nst(both, right).item() == pytest.approx(1.0, rel=1e-12)
    assert nst(row((1, 0), (0, 1)), right).item() == pytest.approx(1 / 2 + 1 - 2 / 2, rel=1e-12)


def test_pkd_by_hand():
    rising, falling = row((0, 1), (1, 2), (2, 3), (3, 4)), row((9, 2), (7, 4), (5, 6), (3, 8))
    # n = 4; the first channel's correlation is -1, the second's 1.
    assert pkd(rising, falling).item() == pytest.approx(0.75 * (2 + 0) / 2, rel=1e-5)
    assert pkd(rising[..., :1], falling[..., :1]).item() == 0


def test_skd_by_hand():
    apart, alike = row((1, 0), (0, 4)), row((2, 0), (3, 0))
    assert skd(apart, alike, pool=1).item() == pytest.approx(1 / 2, rel=1e-12)  # two of four pairs differ by 1
    assert skd(apart, alike).item() == pytest.approx(0, abs=1e-15)  # a single node
    pooled = row((1, 0), (-1, -5), (0, 2), (-3, 4), (9, 9))
    assert skd(pooled[..., :4], row((1, 1)).expand(-1, -1, -1, 4)).item() == pytest.approx(1 / 2, rel=1e-12)
    valid = torch.tensor([True, True, True, True, False]).view(1, 1, 5)  # the last node has no valid pixel
    wide = row((1, 1)).expand(-1, -1, -1, 5)
    assert skd(pooled, wide, valid=valid).item() == pytest.approx(1 / 2, rel=1e-12)


def test_skd_takes_the_maximum_over_valid_pixels_only():
    student = row((-1, -3), (9, 9), (-2, -1), (-4, -1))
    valid = torch.tensor([True, False, True, True]).view(1, 1, 4)
    teacher = torch.ones_like(student)
    assert skd(student, teacher, valid=valid) == skd(student[..., [0, 2]], teacher[..., :2], pool=1)


def test_skd_scale_and_the_official_form():
    student, teacher, _ = batch(h=6, w=8)
    halves = [F.max_pool2d(x, (3, 4)) for x in (student, teacher)]
    torch.testing.assert_close(skd(student, teacher, scale=0.5), skd(*halves, pool=1))
    student.requires_grad_()
    value, official = (skd(student, teacher, pool=1, official=choice) for choice in (False, True))
    torch.testing.assert_close(official, value, rtol=1e-7, atol=0)  # equal but for 1e-8 at the norm
    (gradient,), (constant_norm,) = (torch.autograd.grad(x, student) for x in (value, official))
    along = (gradient * student).sum(1).abs().max(), (constant_norm * student).sum(1).abs().max()
    assert along[0] < 1e-12 and along[1] > 1e-3  # the length of a feature gets a gradient in the official code only
    with pytest.raises(UserError, match="official: false"):
        skd(student[..., :1], teacher[..., :1], scale=0.5, official=True)
    assert skd(student[..., :1], teacher[..., :1], scale=0.5).isfinite()
    for wrong in ({"pool": 0}, {"scale": 1.5}):
        with pytest.raises(UserError, match="pool must be at least 1"):
            skd(student, teacher, **wrong)


def plain_skd(student, teacher):
    student, teacher = (F.normalize(F.max_pool2d(x, 2, ceil_mode=True).flatten(2), dim=1) for x in (student, teacher))
    return (student.mT @ student - teacher.mT @ teacher).square().mean()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**31))
def test_skd_tiles_equal_the_plain_form(n, h, w, rows, seed):
    student, teacher, valid = batch(n, 3, h, w, seed)
    student, teacher = (x.masked_fill(~valid.unsqueeze(1), 0).flatten(2) for x in (student, teacher))
    student.requires_grad_()
    count = valid.flatten(1).sum(1)
    gap = student.mT @ student - teacher.mT @ teacher
    plain = (gap.square().sum((1, 2)) / count.clamp(min=1) ** 2).sum() / (count > 0).sum().clamp(min=1)
    tiled = mean_squared_gap(student, teacher, count, rows)
    torch.testing.assert_close(tiled, plain, rtol=1e-10, atol=1e-12)
    gradients = (torch.autograd.grad(x, student)[0] for x in (tiled, plain))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_skd_never_holds_the_relations(monkeypatch):
    monkeypatch.setattr(pairwise, "TILE_ELEMENTS", 1 << 15)
    student, teacher, _ = batch(n=1, h=40, w=40)
    student.requires_grad_()
    with LargestTensor() as largest:
        value = skd(student, teacher)
        value.backward()
    assert student.numel() < largest.elements <= 1 << 15 < 400**2
    with LargestTensor() as plain:
        expected = plain_skd(student, teacher)
    assert plain.elements == 400**2  # so the probe would have seen it
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
