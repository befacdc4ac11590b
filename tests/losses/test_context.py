"""The context loss: by hand, against its plain form, within its memory, and its GPU kernels in Triton's interpreter."""

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.largest_tensor import LargestTensor

from bcd.losses.context import context
from bcd.losses.context_tiled import LARGEST_SUM, SIDE, tiled_self_relation_kl
from bcd.losses.masked import UNIT_EPS


def maps(n=2, h=5, w=7, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(n, c, h, w, generator=g, dtype=torch.float64) for c in (4, 7))
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def plain_self_relation_kl(s, t):
    """The definition on tokens (L, C), with whole relation matrices."""
    log_s, log_t = (F.log_softmax(x @ x.T, dim=1) for x in (s, t))
    return (log_t.exp() * (log_t - log_s)).sum()


def plain_context(student, teacher, valid, temperature=0.1, normalise=True):
    total = student.sum() * 0
    for s, t, keep in zip(student, teacher, valid.flatten(1), strict=True):
        s, t = s.flatten(1)[:, keep].T, t.detach().flatten(1)[:, keep].T
        if normalise:
            s, t = (F.normalize(x, dim=1, eps=UNIT_EPS) for x in (s, t))
        total = total + plain_self_relation_kl(s / temperature**0.5, t / temperature**0.5)
    return total / valid.sum().clamp(min=1)


def assert_equal_forms(student, teacher, valid, **options):
    found = context(student, teacher, valid=valid, **options)
    plain = plain_context(student, teacher, valid, **options)
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-12)
    gradient, plain_gradient = (torch.autograd.grad(x, student)[0] for x in (found, plain))
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-10, atol=1e-10 * plain_gradient.abs().max().item())


def test_by_hand():
    student, teacher = (torch.tensor(x, dtype=torch.float64)[None, :, None] for x in ([[1, 0], [0, 4]], [[2, 3]]))
    expected = math.log((math.e + 1) / 2) - 0.5  # cosines 0 and 1
    assert context(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("temperature", [2.0, 0.1, 0.01])
def test_equals_the_plain_form(normalise, temperature):
    student, teacher = maps()
    valid = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1)) > 0.3
    assert_equal_forms(student, teacher, valid, temperature=temperature, normalise=normalise)
    valid[0] = True
    valid[1] = False
    assert_equal_forms(student, teacher, valid, temperature=temperature, normalise=normalise)


def test_equals_the_plain_form_where_features_are_too_short_for_a_direction():
    student, teacher = maps()
    with torch.no_grad():
        student[:, :, 2] *= 0.3 * UNIT_EPS
        student[:, :, 3] = 0
    assert_equal_forms(student, teacher, torch.ones(2, 5, 7, dtype=torch.bool))


def test_memory_format_does_not_matter():
    student, teacher = maps()
    value = context(student, teacher)
    other = student.detach().to(memory_format=torch.channels_last).requires_grad_()
    again = context(other, teacher.to(memory_format=torch.channels_last))
    assert again == value
    assert torch.equal(torch.autograd.grad(again, other)[0], torch.autograd.grad(value, student)[0])


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 40),
    side=st.integers(1, 45),
    kept=st.sampled_from([0, 40**2]),
    held=st.sampled_from([0, 40 * 5]),
    size=st.sampled_from([1.0, 0.9 * math.log(LARGEST_SUM), 1.1 * math.log(LARGEST_SUM)]),
    seed=st.integers(0, 2**31),
)
def test_tiles_equal_the_plain_form(length, side, kept, held, size, seed):
    g = torch.Generator().manual_seed(seed)
    s, t = (size**0.5 * F.normalize(torch.randn(length, c, generator=g, dtype=torch.float64), dim=1) for c in (3, 5))
    s.requires_grad_()
    plain = plain_self_relation_kl(s, t)
    (plain_gradient,) = torch.autograd.grad(plain, s)
    s_scale, t_scale = torch.rand(2, length, generator=g, dtype=torch.float64) + 0.5
    features = s.detach().mT / s_scale, t.mT / t_scale, s_scale, t_scale
    value, gradient = tiled_self_relation_kl(*features, side=side, kept=kept, held=held)
    torch.testing.assert_close(value, plain.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, plain_gradient.mT, rtol=1e-10, atol=1e-10)
    assert tiled_self_relation_kl(*features, differentiate=False, side=side)[1] is None


ROUNDOFF = 2.0**-24  # of float32: how far a result may lie from the exact one, relative


def relation_error(features):
    """What float32 may do to each entry of the relations R = softmax(F F^T) of features (L, C), to first order.

    A logit of C products and two scalings is off by (C + 2) roundoffs of |f_i| |f_j|, and R_ij moves by as much of
    itself, less the mean over row i. The logarithm of the row's sum is as large as the logits and of L terms. It is
    off by a roundoff of itself and L of the sum, but never by more than its distance to the largest logit. 4 roundoffs
    are left for exp and the subtraction before it. A logit is thought to be the same wherever it is used.
    """
    length, channels = features.shape
    norms = torch.linalg.vector_norm(features, dim=1)
    logits = features @ features.mT
    log_sum = logits.logsumexp(1, keepdim=True)
    relations = (logits - log_sum).exp()
    own = (channels + 2) * ROUNDOFF * norms.unsqueeze(1) * norms
    common = (ROUNDOFF * (log_sum.abs() + length)).minimum(log_sum - logits.amax(1, keepdim=True))
    moved = own * (1 - 2 * relations) + (relations * own).sum(1, keepdim=True) + common + 4 * ROUNDOFF
    return relations * moved


def gradient_error(s, t, gradient, product_roundoff=ROUNDOFF):
    """What float32 may do to the gradient M F of the plain form, M = (R_s - R_t) + (R_s - R_t)^T, relative to the
    largest: the relations are off, M is rounded for the product, and that sums L terms."""
    s, t = s.detach(), t.detach()
    slopes = (s @ s.mT).softmax(1) - (t @ t.mT).softmax(1)
    moved = relation_error(s) + relation_error(t)
    moved += (len(s) * ROUNDOFF + product_roundoff) * slopes.abs()
    return (((moved + moved.mT) @ s.abs()).max() / gradient.abs().max()).item()


@pytest.mark.parametrize("size", [10.0, 0.9 * math.log(LARGEST_SUM), 1.1 * math.log(LARGEST_SUM), 1000.0])
def test_float32_is_as_exact_as_its_logits(size):
    """Whether the largest logit is subtracted or not."""
    g = torch.Generator().manual_seed(0)
    s, t = (size**0.5 * F.normalize(torch.randn(c, 90, generator=g), dim=0) for c in (3, 5))
    exact = s.mT.double().requires_grad_()
    plain = plain_self_relation_kl(exact, t.mT.double())
    (plain_gradient,) = torch.autograd.grad(plain, exact)
    value, gradient = tiled_self_relation_kl(s, t, *torch.ones(2, 90), side=32)
    # By (5 + 2) roundoffs of `size` for a logit of up to 5 products, and one for the logarithm of its row's sum.
    assert value.item() == pytest.approx(plain.item(), rel=8 * size * ROUNDOFF)
    tolerance = gradient_error(exact, t.mT.double(), plain_gradient)
    assert (gradient - plain_gradient.mT).abs().max() <= tolerance * plain_gradient.abs().max()


@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_never_holds_the_relations(temperature):
    student, teacher = maps(n=1, h=40, w=40, dtype=torch.float32)
    with LargestTensor() as largest:
        context(student, teacher, temperature=temperature).backward()
    assert 1600 * 7 <= largest.elements <= 3 * SIDE**2 < 1600**2
    with LargestTensor() as plain:
        plain_context(student, teacher, torch.ones(1, 40, 40, dtype=torch.bool)).backward()
    assert plain.elements == 1600**2  # so the probe would have seen it


def fused_deviations(product_dtype, length, channels, size):
    """How far `fused_self_relation_kl` lies from the plain form: the value, relative; the gradient, as a share of what
    the formats allow; both at equality."""
    from bcd.losses.context_triton import fused_self_relation_kl as fused

    g = torch.Generator().manual_seed(0)
    features = [torch.randn(length, c, generator=g).to(product_dtype).float() for c in channels]
    scales = [(0.5 + torch.rand(length, generator=g)) * 3 * size / c**0.5 for c in channels]
    exact, t = (x.double() * scale.double().unsqueeze(1) for x, scale in zip(features, scales, strict=True))
    plain = plain_self_relation_kl(exact.requires_grad_(), t)
    (plain_gradient,) = torch.autograd.grad(plain, exact)
    features = [x.mT for x in features]
    value, gradient = fused(*features, *scales, product_dtype=product_dtype)
    same, same_gradient = fused(*features[:1] * 2, *scales[:1] * 2, product_dtype=product_dtype)
    deviation = (gradient - plain_gradient.mT).abs().max() / plain_gradient.abs().max()
    deviation /= gradient_error(exact, t, plain_gradient, torch.finfo(product_dtype).eps / 2)
    return abs(value / plain - 1).item(), deviation.item(), same.item(), same_gradient.abs().max().item()


@pytest.fixture(scope="module")
def interpreter():
    """A process in which Triton interprets kernels on the CPU; it decides that when it is first imported."""
    pytest.importorskip("triton")
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        patch.setenv("TRITON_INTERPRET", "1")
        yield pool


# The interpreter takes no products of bfloat16; float16 goes the same way through the kernels.
@pytest.mark.parametrize("product_dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("length", "channels", "size"), [(70, (20, 65), 1.0), (64, (300, 16), 1.0), (100, (5, 9), 9.0)]
)
def test_fused_equals_the_plain_form(interpreter, product_dtype, length, channels, size):
    value, gradient, same, same_gradient = interpreter.submit(
        fused_deviations, product_dtype, length, channels, size
    ).result()
    assert value <= 1e-5 and gradient <= 1
    assert same == same_gradient == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_gpu_equals_cpu(dtype, tolerance):
    student, teacher = (x.detach().to(dtype) for x in maps(h=30, w=30))
    valid = torch.rand(2, 30, 30, generator=torch.Generator().manual_seed(1)) > 0.3
    found = []
    for device in ("cpu", "cuda"):
        s = student.to(device).requires_grad_()
        value = context(s, teacher.to(device), valid=valid.to(device))
        found.append((value.detach().cpu(), torch.autograd.grad(value, s)[0].cpu()))
    (value, gradient), (gpu_value, gpu_gradient) = found
    torch.testing.assert_close(gpu_value, value, rtol=1e-4, atol=0)
    assert (gpu_gradient - gradient).abs().max() <= tolerance * gradient.abs().max()
