"""The contract of every loss, one hand-computed value each, and the context loss against its plain form."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from bcd.errors import UserError
from bcd.losses import TERMS
from bcd.losses.boundary import OPERATORS, boundary, posterior_boundary
from bcd.losses.channel import cwd
from bcd.losses.context import TILE_ELEMENTS, context, self_relation_kl
from bcd.losses.logits import kd

# term, options, whether student and teacher may differ in channels
CASES = [
    ("kd", {}, False),
    ("kd", {"temperature": 4.0}, False),
    ("cwd", {}, False),
    ("cwd", {"temperature": 4.0}, False),
    *[("boundary", {"operator": name, "distance": d}, True) for name in OPERATORS for d in ("l1", "l2")],
    ("posterior_boundary", {}, False),
    ("posterior_boundary", {"temperature": 2.0, "epsilon": 0.1, "min_energy": 0.5}, False),
    ("context", {}, True),
    ("context", {"temperature": 2.0, "normalise": False}, True),
]
every_case = pytest.mark.parametrize(
    ("term", "options", "free"), CASES, ids=[f"{t}-{'-'.join(map(str, o.values())) or 'default'}" for t, o, _ in CASES]
)


def maps(free=False, n=2, c=4, h=5, w=7, dtype=torch.float64, scale=2.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(n, c, h, w, generator=g, dtype=torch.float64)
    teacher = scale * torch.randn(n, c + 3 if free else c, h, w, generator=g, dtype=torch.float64)
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def some_valid(n=2, h=5, w=7, seed=1):
    valid = torch.rand(n, h, w, generator=torch.Generator().manual_seed(seed)) > 0.3
    assert valid.any() and not valid.all()
    return valid


def value_and_grad(term, options, student, teacher, valid=None):
    student = student.detach().requires_grad_()
    value = TERMS[term].loss(student, teacher, valid=valid, **options)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


def test_every_term_has_a_case():
    assert {term for term, _, _ in CASES} == set(TERMS)


def test_options_are_read_from_the_signature():
    assert TERMS["kd"].options == {"temperature": 1.0}
    assert set(TERMS["context"].options) == {"temperature", "normalise"}


@every_case
def test_scalar_zero_at_equality_positive_otherwise(term, options, free):
    student, teacher = maps(free)
    value, _ = value_and_grad(term, options, student, teacher)
    assert value.shape == () and value.dtype == torch.float64 and value > 1e-3
    same, gradient = value_and_grad(term, options, student, student)
    assert abs(same) < 1e-14 and gradient.abs().max() < 1e-14


@every_case
def test_gradient_reaches_the_student_only(term, options, free):
    student, teacher = maps(free)
    teacher.requires_grad_()
    TERMS[term].loss(student, teacher, valid=None, label=None, **options).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@every_case
def test_gradcheck(term, options, free):
    student, teacher = maps(free, c=3, h=3, w=4)
    valid = some_valid(h=3, w=4)
    assert torch.autograd.gradcheck(lambda s: TERMS[term].loss(s, teacher, valid=valid, **options), (student,))
    assert torch.autograd.gradcheck(lambda s: TERMS[term].loss(s, teacher, **options), (student,))


@every_case
@pytest.mark.parametrize("poison", [7.0, -1e30, math.inf, math.nan])
def test_content_of_invalid_pixels_is_irrelevant(term, options, free, poison):
    student, teacher = maps(free)
    valid = some_valid()
    value, gradient = value_and_grad(term, options, student, teacher, valid)
    hole = ~valid.unsqueeze(1)
    poisoned = (student.detach().masked_fill(hole, poison), teacher.masked_fill(hole, -poison))
    again, gradient_again = value_and_grad(term, options, *poisoned, valid)
    assert again == value and torch.equal(gradient, gradient_again)
    assert gradient[hole.expand_as(gradient)].eq(0).all() and gradient.abs().sum() > 0


@every_case
def test_padding_equals_no_padding(term, options, free):
    student, teacher = maps(free)
    value, gradient = value_and_grad(term, options, student, teacher)
    valid = F.pad(torch.ones(2, 5, 7, dtype=torch.bool), (0, 3, 0, 2))
    padded, padded_gradient = value_and_grad(
        term, options, F.pad(student, (0, 3, 0, 2), value=9.0), F.pad(teacher, (0, 3, 0, 2), value=-9.0), valid
    )
    torch.testing.assert_close(padded, value, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(padded_gradient[..., :5, :7], gradient, rtol=1e-10, atol=1e-14)


@every_case
def test_an_image_without_valid_pixels_changes_nothing(term, options, free):
    student, teacher = maps(free)
    valid = some_valid()
    value, gradient = value_and_grad(term, options, student[:1], teacher[:1], valid[:1])
    valid[1] = False
    both, both_gradient = value_and_grad(term, options, student, teacher, valid)
    torch.testing.assert_close(both, value, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(both_gradient[:1], gradient, rtol=1e-10, atol=1e-14)


@every_case
def test_nothing_valid_gives_zero_and_zero_gradients(term, options, free):
    student, teacher = maps(free)
    value, gradient = value_and_grad(term, options, student, teacher, torch.zeros(2, 5, 7, dtype=torch.bool))
    assert value == 0 and gradient.eq(0).all()


@every_case
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (2, 3)])
def test_small_maps(term, options, free, size):
    student, teacher = maps(free, h=size[0], w=size[1])
    value, gradient = value_and_grad(term, options, student, teacher)
    assert value >= 0 and value.isfinite() and gradient.isfinite().all()
    if size == (2, 3):
        assert value > 0


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision_is_computed_in_float32(term, options, free, dtype, tolerance):
    student, teacher = maps(free, dtype=dtype)
    value, gradient = value_and_grad(term, options, student, teacher)
    exact, exact_gradient = value_and_grad(term, options, student.double(), teacher.double())
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=0)
    assert (gradient.double() - exact_gradient).abs().max() <= tolerance * exact_gradient.abs().max()


@every_case
def test_autocast_changes_nothing(term, options, free):
    student, teacher = maps(free, dtype=torch.float32)
    value, gradient = value_and_grad(term, options, student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        again, gradient_again = value_and_grad(term, options, student, teacher)
    assert again == value and torch.equal(gradient, gradient_again)


@every_case
@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e15), (torch.bfloat16, 1e4), (torch.float32, 0.0)])
def test_finite_for_extreme_inputs(term, options, free, dtype, scale):
    student, teacher = maps(free, dtype=dtype, scale=scale)
    value, gradient = value_and_grad(term, options, student, teacher, some_valid())
    assert value.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("term", ["kd", "cwd", "posterior_boundary"])
def test_channelwise_terms_refuse_other_channel_counts(term):
    with pytest.raises(UserError, match="4 channels and the teacher's 7"):
        TERMS[term].loss(*maps(free=True))


def test_maps_and_masks_must_fit():
    student, teacher = maps()
    with pytest.raises(ValueError, match="differ in N, H or W"):
        kd(student, teacher[..., :-1])
    with pytest.raises(ValueError, match="does not fit"):
        kd(student, teacher, valid=torch.ones(2, 4, 7, dtype=torch.bool))


def test_boundary_names_its_choices():
    with pytest.raises(UserError, match="affinity, residual, attention"):
        boundary(*maps(), operator="sobel")
    with pytest.raises(UserError, match="l1 or l2"):
        boundary(*maps(), distance="huber")


def row(*pixels):
    """A (1, C, 1, W) map from one tuple of channels per pixel."""
    return torch.tensor(pixels, dtype=torch.float64).T[None, :, None, :]


def test_kd_by_hand():
    teacher, student = row((math.log(3), 0)), row((0, 0))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kd(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert kd(2 * student, 2 * teacher, temperature=2.0).item() == pytest.approx(4 * expected, rel=1e-12)


def test_cwd_by_hand():
    teacher, student = row((math.log(3), 0), (0, 0)), row((0, 0), (0, 0))  # the second channel agrees
    assert cwd(student, teacher).item() == pytest.approx((0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2, rel=1e-12)


@pytest.mark.parametrize(
    ("operator", "student", "strength"),
    [
        ("affinity", row((1, 0), (0, 5)), 1.0),  # orthogonal
        ("affinity", row((1, 0), (-3, 0)), 2.0),  # opposite
        ("residual", row((0,), (2,)), 1 / math.sqrt(2)),  # residuals -1 and 1, rms length sqrt(2)
        ("attention", row((0,), (2,)), 2.0),  # energies 0 and 4, mean 2
    ],
)
def test_boundary_by_hand(operator, student, strength):
    flat = torch.ones_like(student)
    assert boundary(student, flat, operator=operator).item() == pytest.approx(strength, rel=1e-12)
    squared = boundary(student, flat, operator=operator, distance="l2").item()
    assert squared == pytest.approx(strength**2, rel=1e-12)


def test_posterior_boundary_by_hand():
    teacher, student = row((90, 0), (90, 0), (0, 90)), row((0, 0), (0, 0), (0, 0))
    # Both classes have teacher energies (0, 1, 1), total 2; with epsilon .5: (1, 3, 3) / 7, the student's 1/3.
    expected = (1 / 7) * math.log(3 / 7) + 2 * (3 / 7) * math.log(9 / 7)
    assert posterior_boundary(student, teacher, epsilon=0.5, min_energy=1.9).item() == pytest.approx(expected)
    assert posterior_boundary(student, teacher, epsilon=0.5, min_energy=2.1) == 0


def test_context_by_hand():
    student, teacher = row((1, 0), (0, 4)), row((2, 0), (3, 0))  # cosine 0 and 1
    expected = math.log((math.e + 1) / 2) - 0.5
    assert context(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-12)


def plain_context(student, teacher, valid, temperature, normalise=True):
    """The definition, with whole relation matrices and a loop over images."""
    total = student.sum() * 0
    for s, t, keep in zip(student, teacher, valid.flatten(1), strict=True):
        if not keep.any():
            continue
        s, t = s.flatten(1)[:, keep], t.detach().flatten(1)[:, keep]
        if normalise:
            s, t = s / s.norm(dim=0), t / t.norm(dim=0)
        relation = F.softmax(t.T @ t / temperature, dim=1)
        total = total + (relation * (relation.log() - F.log_softmax(s.T @ s / temperature, dim=1))).sum()
    return total / valid.sum().clamp(min=1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 40), st.booleans(), st.integers(0, 2**31)
)
def test_context_tiles_equal_the_plain_form(n, h, w, rows, normalise, seed):
    student, teacher = maps(True, n, 3, h, w, scale=1.0, seed=seed)
    valid = torch.rand(n, h, w, generator=torch.Generator().manual_seed(seed)) > 0.4
    plain = plain_context(student, teacher, valid, 0.5, normalise)
    (plain_gradient,) = torch.autograd.grad(plain, student)
    tokens = student.masked_fill(~valid.unsqueeze(1), 0), teacher.masked_fill(~valid.unsqueeze(1), 0)
    tokens = (x.flatten(2).mT for x in tokens)
    tokens = (F.normalize(x, dim=-1) for x in tokens) if normalise else tokens
    tiled = self_relation_kl(*tokens, valid.flatten(1), 0.5, rows=rows)
    (gradient,) = torch.autograd.grad(tiled, student)
    torch.testing.assert_close(tiled, plain, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-10, atol=1e-10)


def test_context_equals_the_plain_form_end_to_end():
    student, teacher = maps(True)
    valid = some_valid()
    for normalise, temperature in ((True, 0.1), (False, 1.0)):
        value, gradient = value_and_grad(
            "context", {"temperature": temperature, "normalise": normalise}, student, teacher, valid
        )
        plain = plain_context(student, teacher, valid, temperature, normalise)
        torch.testing.assert_close(value, plain.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient, torch.autograd.grad(plain, student)[0], rtol=1e-10, atol=1e-10)


class LargestTensor(TorchFunctionMode):
    """Records the element count of the largest tensor any operation called from Python returns."""

    elements = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_context_never_holds_the_relations():
    student, teacher = maps(True, n=1, h=40, w=40, dtype=torch.float32)
    with LargestTensor() as largest:
        context(student, teacher).backward()
    assert 1600 * 7 <= largest.elements <= TILE_ELEMENTS < 1600**2
    with LargestTensor() as plain:
        plain_context(student, teacher, torch.ones(1, 40, 40, dtype=torch.bool), 0.1).backward()
    assert plain.elements == 1600**2  # so the probe would have seen it
