"""Holistic distillation: its losses by hand, what the critic's own training may touch, and how it is resumed."""

import copy
import io
import math

import pytest
import torch
from torch import nn

from bcd.errors import UserError
from bcd.losses.critic import Critic, SelfAttention, SpectralConv2d
from bcd.losses.holistic import Holistic, critic_loss, generator_loss, gradient_penalty

SETTINGS = [{}, {"kind": "hinge", "critic_optimizer": "adam"}]
every_setting = pytest.mark.parametrize("options", SETTINGS, ids=["skd", "cirkd"])


def build(seed=0, channels=3, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    shape = (2, channels, 5, 7)
    return Holistic(shape, shape, **{"width": 4, **options}).to(dtype)


def maps(n=2, h=5, w=7, seed=0, scale=1.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(n, 3, h, w, generator=g, dtype=torch.float64) for _ in range(2))
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def step(term, student, teacher, valid=None, seed=1):
    torch.manual_seed(seed)
    student = student.detach().requires_grad_()
    value = term(student, teacher, valid=valid)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


def assert_same_state(one, two):
    one, two = one.state_dict(), two.state_dict()
    extra = {key for key in one if key.endswith("_extra_state")}
    assert extra and all(torch.equal(one[key], two[key]) for key in one.keys() - extra)
    for key in extra:
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=0)


def test_losses_by_hand():
    d_student, d_teacher = torch.tensor([-2.0, 1.0]), torch.tensor([0.0, 3.0])
    assert generator_loss(d_student) == 0.5
    assert critic_loss(d_student, d_teacher, "wgan-gp") == -0.5 - 1.5
    assert critic_loss(d_student, d_teacher, "hinge") == (0 + 2) / 2 + (1 + 0) / 2


def test_gradient_penalty_by_hand():
    critic = nn.Conv2d(1, 1, 1)  # slope = its weight at each of 4 pixels, so its norm is twice the weight
    nn.init.constant_(critic.weight, 2.0)
    value = gradient_penalty(critic, torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2), weight=10.0)
    value.backward()
    assert value.item() == pytest.approx(10 * (4 - 1) ** 2)
    assert critic.weight.grad.item() == pytest.approx(10 * 2 * (4 - 1) * 2)


def test_spectral_norm_tends_to_one_and_rests_in_eval():
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 6).double()
    maps = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    for _ in range(200):
        layer(maps)
    largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    expected = nn.functional.conv2d(maps, layer.weight / largest, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(maps), expected, rtol=1e-6, atol=1e-8)
    u = layer.u.clone()
    layer.eval()(maps)
    assert torch.equal(layer.u, u)


def test_attention_by_hand():
    layer = SelfAttention(1).double()
    for part, weight in ((layer.query, 1.0), (layer.key, math.log(3)), (layer.value, 1.0)):
        nn.init.constant_(part.weight, weight)
        nn.init.zeros_(part.bias)
    x = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    assert torch.equal(layer(x), x)  # gamma starts at 0
    nn.init.constant_(layer.gamma, 2.0)
    # The first pixel weighs both alike, the second by 1 : 3.
    torch.testing.assert_close(layer(x).flatten(), torch.tensor([2 * 0.5, 1 + 2 * 0.75], dtype=torch.float64))


def test_critic_sizes():
    assert Critic(3, width=4)(torch.randn(2, 3, 64, 100)).shape == (2, 1, 1, 3)


@every_setting
def test_a_step_is_the_plain_one(options):
    """The critic's update, written the usual way, and the score of the student by the critic that results."""
    term = build(**options)
    plain = copy.deepcopy(term.critic).requires_grad_(True)
    if options:
        optimizer = torch.optim.Adam(plain.parameters(), lr=4e-4, betas=(0.9, 0.99))
    else:
        optimizer = torch.optim.SGD(plain.parameters(), lr=4e-4, momentum=0.9, weight_decay=5e-4)
    for seed in (1, 2, 3):
        student, teacher = maps(h=64, w=66, seed=seed)
        value, gradient = step(term, student, teacher, seed=seed)
        torch.manual_seed(seed)
        optimizer.zero_grad()
        real = plain(teacher)
        loss = critic_loss(plain(student.detach()), real, term.kind)
        if not options:
            loss = loss + gradient_penalty(plain, student, teacher)
        (0.1 * loss).backward()
        optimizer.step()
        expected = generator_loss(plain(student))
        torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0], rtol=1e-9, atol=1e-15)
        for ours, theirs in zip(term.critic.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.data, theirs.data, rtol=1e-12, atol=1e-15)


@every_setting
def test_the_critic_is_invisible_from_outside(options):
    term, (student, teacher) = build(**options), maps()
    teacher.requires_grad_()
    term(student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None
    assert not any(p.requires_grad or p.grad is not None for p in term.parameters())


@every_setting
def test_the_critic_learns_to_prefer_the_teacher(options):
    term, (student, teacher) = build(critic_lr=2e-3, **options), maps()
    student = student + torch.linspace(0, 3, 7, dtype=torch.float64)
    gaps = []
    for seed in range(30):
        with torch.no_grad():
            gaps.append(
                term.eval()(student, teacher) - term(teacher, teacher)
            )  # how much worse it thinks of the student
        step(term.train(), student, teacher, seed=seed)
    assert gaps[-1] > gaps[0] + 0.02


@every_setting
def test_resumed_equals_uninterrupted(options):
    whole = build(**options)
    for seed in range(3):
        step(whole, *maps(seed=seed), seed=seed)
    saved = io.BytesIO()
    torch.save(whole.state_dict(), saved)
    resumed = build(seed=9, **options)
    saved.seek(0)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    for seed in range(3, 6):
        (value, gradient), (again, gradient_again) = (step(t, *maps(seed=seed), seed=seed) for t in (whole, resumed))
        assert again == value and torch.equal(gradient_again, gradient)
    assert_same_state(whole, resumed)


@every_setting
def test_no_update_in_eval_mode_or_without_gradients(options):
    term, before = build(**options), build(**options)
    step(term.eval(), *maps())
    assert_same_state(term, before)
    with torch.no_grad():
        term.train()(*maps())
    assert all(torch.equal(p, q) for p, q in zip(term.parameters(), before.parameters(), strict=True))


@every_setting
def test_nothing_valid_changes_nothing(options):
    term, before = build(**options), build(**options)
    torch.manual_seed(1)
    untouched = torch.get_rng_state()
    value, gradient = step(term, *maps(), torch.zeros(2, 5, 7, dtype=torch.bool))
    assert value == 0 and gradient.eq(0).all()
    assert_same_state(term, before)
    assert torch.equal(torch.get_rng_state(), untouched)


@every_setting
@pytest.mark.parametrize("poison", [7.0, math.inf, math.nan])
def test_content_of_invalid_pixels_is_irrelevant(options, poison):
    student, teacher = maps()
    valid = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(3)) > 0.3
    hole = ~valid.unsqueeze(1)
    one, two = build(**options), build(**options)
    value, gradient = step(one, student, teacher, valid)
    again, gradient_again = step(two, student.masked_fill(hole, poison), teacher.masked_fill(hole, -poison), valid)
    assert again == value and torch.equal(gradient, gradient_again)
    assert gradient[hole.expand_as(gradient)].eq(0).all() and gradient.abs().sum() > 0
    assert_same_state(one, two)


@every_setting
def test_an_image_without_valid_pixels_is_left_out(options):
    student, teacher = maps()
    valid = torch.ones(2, 5, 7, dtype=torch.bool)
    valid[1] = False
    one, two = build(**options), build(**options)
    value, gradient = step(one, student[:1], teacher[:1])
    both, both_gradient = step(two, student, teacher, valid)
    assert both == value and torch.equal(both_gradient[:1], gradient) and both_gradient[1].eq(0).all()
    assert_same_state(one, two)


@every_setting
def test_gradcheck(options):
    term = build(**options).eval()
    student, teacher = maps(n=1, h=3, w=4)
    valid = torch.ones(1, 3, 4, dtype=torch.bool)
    valid[0, 1, 2] = False
    with torch.no_grad():
        for layer in term.critic.layers:
            if isinstance(layer, SelfAttention):
                layer.gamma.fill_(0.5)
    assert torch.autograd.gradcheck(lambda s: term(s, teacher, valid=valid), (student,))


@every_setting
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (70, 3), (65, 65)])
@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float32, 1.0), (torch.float32, 1e15), (torch.float32, 0.0), (torch.bfloat16, 1e4)]
)
def test_finite_and_deterministic(options, size, dtype, scale):
    student, teacher = maps(h=size[0], w=size[1], dtype=dtype, scale=scale)
    torch.use_deterministic_algorithms(True)
    try:
        term = build(dtype=torch.float32, **options)
        for seed in range(2):
            value, gradient = step(term, student, teacher, seed=seed)
            assert value.isfinite() and gradient.isfinite().all()
            assert value.dtype == torch.float32 and gradient.dtype == dtype
        assert all(p.isfinite().all() for p in term.parameters())
    finally:
        torch.use_deterministic_algorithms(False)


@every_setting
def test_autocast_and_half_precision(options):
    student, teacher = maps(dtype=torch.bfloat16)
    value, gradient = step(build(dtype=torch.float32, **options), student, teacher)
    student = student.detach().requires_grad_()
    term = build(dtype=torch.float32, **options)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(1)  # as in `step`
        again = term(student, teacher)
    # Outside, as in training: a backward pass would have its own autocast, and products in half precision.
    (gradient_again,) = torch.autograd.grad(again, student)
    assert again == value and torch.equal(gradient, gradient_again)
    exact, _ = step(build(dtype=torch.float32, **options), student.float(), teacher.float())
    assert exact == value


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="wgan-gp, hinge, not 'lsgan'"):
        build(kind="lsgan")
    with pytest.raises(KeyError, match="lamb"):
        build(critic_optimizer="lamb")
    student, teacher = maps()
    with pytest.raises(UserError, match="3 channels and the teacher's 2"):
        build()(student, teacher[:, :2])


def _rank(rank, init, folder):
    """Rank 0 has images in both steps, rank 1 in the second only, and none has any in a third."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    term = build()
    values = []
    for seed, ranks in ((0, (0,)), (1, (0, 1)), (2, ())):
        valid = torch.full((2, 5, 7), rank in ranks)
        values.append(step(term, *maps(seed=10 * rank + seed), valid, seed=seed + 10 * rank)[0])
        torch.save((values, term.state_dict()), f"{folder}/{rank}-{seed}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_share_one_critic(tmp_path):
    torch.multiprocessing.spawn(_rank, (f"file://{tmp_path}/init", str(tmp_path)), nprocs=2)
    saved = {(r, s): torch.load(tmp_path / f"{r}-{s}.pt", weights_only=True) for r in (0, 1) for s in (0, 1, 2)}
    for s in (0, 1, 2):
        torch.testing.assert_close(saved[0, s][1], saved[1, s][1], rtol=0, atol=0)
    torch.testing.assert_close(saved[0, 1][1], saved[0, 2][1], rtol=0, atol=0)
    alone = build()
    value, _ = step(alone, *maps(seed=0), seed=0)
    assert saved[0, 0][0][0] == value and saved[1, 0][0][0] == 0
    torch.testing.assert_close(saved[0, 0][1], dict(alone.state_dict()), rtol=0, atol=0)
    assert not torch.equal(saved[0, 0][1]["critic.scale"], saved[0, 1][1]["critic.scale"])
