"""The contract of every loss, one hand-computed value each, and the context loss against its plain form."""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import isclass
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.config.terms import term_options
from bcd.errors import UserError
from bcd.losses import TERMS
from bcd.losses.boundary import DISTANCES, OPERATORS, boundary, posterior_boundary, residual
from bcd.losses.channel import cwd
from bcd.losses.holistic import KINDS, OPTIMIZERS
from bcd.losses.logits import NORMALISATIONS, kd
from bcd.losses.mgd import MASKS


@dataclass(frozen=True)
class Case:
    """One term with options, and which parts of the contract its formula cannot keep.

    free    student and teacher may differ in channels
    zero    the loss is 0 where student and teacher agree
    padded  padding that is not valid changes nothing; not so behind convolutions of more than one pixel
    smooth  the gradient is the derivative of the value: no critic that moves, nothing cut from the graph
    size    (C, H, W) of the student's finest map
    images  in a batch
    noise   how many unit roundoffs of 1 the value may be off, where it is a small difference of larger numbers
    """

    term: str
    options: dict = field(default_factory=dict)
    free: bool = True
    zero: bool = True
    padded: bool = True
    smooth: bool = True
    size: tuple[int, int, int] = (4, 5, 7)
    images: int = 2
    noise: float = 0.0

    def __str__(self) -> str:
        return "-".join([self.term, *map(str, self.options.values())])


CASES = [
    *[Case("boundary", {"operator": name, "distance": d}) for name in OPERATORS for d in ("l1", "l2")],
    Case("context"),
    Case("context", {"temperature": 2.0, "normalise": False}),
    Case("context", {"pool": 2}, padded=False),  # a cell may straddle the edge of the padding
    Case("posterior_boundary", free=False),
    Case("posterior_boundary", {"temperature": 2.0, "epsilon": 0.1, "min_energy": 0.5}, free=False),
    Case("kd", free=False),
    Case("kd", {"temperature": 4.0}, free=False),
    Case("kd", {"normalisation": "torchdistiller"}, free=False),
    Case("kd", {"normalisation": "skd"}, free=False, zero=False),  # a cross entropy
    Case("dkd", free=False),
    Case("dist", free=False, zero=False),  # 1e-8 in its denominators
    Case("cwd", free=False),
    Case("cwd", {"temperature": 4.0}, free=False),
    Case("bpkd_edge", {"width": 3}, free=False),
    Case("bpkd_body", {"width": 3}, free=False),
    Case("holistic", {"width": 4}, free=False, zero=False, padded=False, smooth=False),
    Case("holistic", {"width": 4, "kind": "hinge"}, free=False, zero=False, padded=False, smooth=False),
    Case("csd", {"temperature": 0.5}, free=False),
    Case("at"),
    Case("at", {"p": 4.0}),
    Case("fitnet", free=False),
    Case("mgd", {"mask_ratio": 0.0}, zero=False, size=(3, 5, 7)),
    Case("mgd", {"mask": "channel", "mask_ratio": 0.3}, zero=False, padded=False),
    Case("fgd", zero=False, padded=False),
    Case("pkd", free=False),
    Case("reviewkd", {"mid_channels": 8}, zero=False, padded=False),
    Case("vid", zero=False),
    Case("attnfd", zero=False),
    Case("nst"),
    Case("skd"),
    Case("skd", {"scale": 0.5}, padded=False),  # the pools grow with the map
    Case("skd", {"official": True}, smooth=False),  # its norm is cut from the graph
    Case("psd", zero=False, padded=False),  # levels are padded by equal pixels here, not by equal parts of the image
    Case("ifvd"),
    Case("cirkd_batch"),
    Case("cirkd_memory", {"pixel_memory": 40, "region_memory": 8}, zero=False),
    Case("afdcd", {"groups": 7, "pool": 2, "patch": 2}, zero=False, padded=False),
    Case("spkd"),
    Case("rkd", images=3),  # an angle has three corners
    # Its gradient at equality is of the order of epsilon. Of M = 2 images p_ij = k_ij / sum_j k_ij takes M roundings
    # and p_ij + epsilon one more, of teacher and student, and their quotient one: a row's sum of p_t log(p_t / p_s) is
    # off by 2 (M + 1) + 1 roundoffs of its sum of p_t, which is 1. There are M rows, and the sum is divided by M^2.
    Case("pkt", zero=False, noise=(2 * (2 + 1) + 1) / 2),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
CLASSES = 3
LEVELS = 3  # of a joint loss
ROUNDOFF = 2.0**-24  # of float32: how far a result may lie from the exact one, relative


@dataclass
class Maps:
    """The inputs of a loss, one entry per level; single losses see the first."""

    student: list
    teacher: list
    valid: list
    label: list


def maps(case: Case, n=None, size=None, dtype=torch.float64, scale=2.0, seed=0) -> Maps:
    """Random maps of which all pixels are valid; each level has about half the size of the one before."""
    g = torch.Generator().manual_seed(seed)
    n, (c, h, w) = n or case.images, (case.size[0], *(size or case.size[1:]))
    found = Maps([], [], [], [])
    for level in range(LEVELS if TERMS[case.term].joint else 1):
        sides = (n, -(-h // 2**level), -(-w // 2**level))
        for where, channels in ((found.student, c + level), (found.teacher, c + level + (3 if case.free else 0))):
            values = scale * torch.randn(sides[0], channels, *sides[1:], generator=g, dtype=torch.float64)
            where.append(values.to(dtype))
        found.valid.append(torch.ones(sides, dtype=torch.bool))
        found.label.append(torch.randint(CLASSES, sides, generator=g))
    return found


def partly_valid(found: Maps, seed=1) -> Maps:
    g = torch.Generator().manual_seed(seed)
    valid = [torch.rand(v.shape, generator=g) > 0.3 for v in found.valid]
    assert valid[0].any() and not valid[0].all()
    return replace(found, valid=valid)


def value_and_grads(case: Case, found: Maps) -> tuple[Tensor, list[Tensor]]:
    """The loss and its gradients by the student's maps. A loss with state is built anew, always alike."""
    student = [s.detach().requires_grad_() for s in found.student]
    value = call(case, replace(found, student=student))
    return value.detach(), list(torch.autograd.grad(value, student))


def call(case: Case, found: Maps) -> Tensor:
    term = TERMS[case.term]
    images = {"image_label": found.label[0].masked_fill(~found.valid[0], 255), "boxes": boxes(len(found.valid[0]))}
    facts = {"valid": found.valid, "label": found.label} | images
    given = [found.student, found.teacher]
    if not term.joint:
        given = [maps[0] for maps in given]
        facts = {name: facts[name][0] for name in ("valid", "label")} | images
    torch.manual_seed(3)
    loss = partial(term.loss, **case.options)
    if isclass(term.loss):
        shapes = [[m.shape for m in one] if term.joint else one.shape for one in given]
        classes = {"classes": CLASSES} if term.reads_classes else {}
        loss = term.loss(*shapes, **case.options, **classes)
        loss = loss.to(torch.promote_types(found.student[0].dtype, torch.float32))
    return loss(*given, **{name: facts[name] for name in term.facts})


def boxes(n: int) -> list[Tensor]:
    return [torch.tensor([[0.1, 0.2, 0.6, 0.7]]), *[torch.zeros(0, 4)] * (n - 1)]


def test_every_term_has_a_case():
    assert {case.term for case in CASES} == set(TERMS)


def test_every_loss_reads_valid_and_explains_itself():
    for name, term in TERMS.items():
        assert "valid" in term.facts, name
        assert len((term.loss.__doc__ or "").splitlines()) > 5, f"{name}: formula, shapes and source belong here"


@every_case
def test_scalar_positive_and_zero_at_equality(case):
    found = maps(case)
    value, gradients = value_and_grads(case, found)
    assert value.shape == () and value.dtype == torch.float64
    assert all(g.abs().max() > 0 for g in gradients)
    if case.zero:
        assert value > 1e-3
        same, gradients = value_and_grads(case, replace(found, teacher=found.student))
        assert abs(same) < 1e-14 and all(g.abs().max() < 1e-14 for g in gradients)


@every_case
def test_gradient_reaches_the_student_only(case):
    found = maps(case)
    teacher = [t.requires_grad_() for t in found.teacher]
    student = [s.requires_grad_() for s in found.student]
    call(case, found).backward()
    assert all(t.grad is None for t in teacher)
    assert all(s.grad.abs().sum() > 0 for s in student)


@every_case
def test_gradcheck(case):
    if not case.smooth:
        pytest.skip("the loss draws a path at random or its critic moves")
    for found in (maps(case, size=(3, 4)), partly_valid(maps(case, size=(3, 4)))):
        students = tuple(s.requires_grad_() for s in found.student)
        assert torch.autograd.gradcheck(lambda *s, found=found: call(case, replace(found, student=list(s))), students)


@every_case
@pytest.mark.parametrize("poison", [7.0, -1e30, math.inf, math.nan])
def test_content_of_invalid_pixels_is_irrelevant(case, poison):
    found = partly_valid(maps(case))
    value, gradients = value_and_grads(case, found)
    holes = [~v.unsqueeze(1) for v in found.valid]
    poisoned = replace(
        found,
        student=[s.masked_fill(hole, poison) for s, hole in zip(found.student, holes, strict=True)],
        teacher=[t.masked_fill(hole, -poison) for t, hole in zip(found.teacher, holes, strict=True)],
    )
    again, gradients_again = value_and_grads(case, poisoned)
    assert again == value
    for gradient, gradient_again, hole in zip(gradients, gradients_again, holes, strict=True):
        assert torch.equal(gradient, gradient_again)
        assert gradient[hole.expand_as(gradient)].eq(0).all() and gradient.abs().sum() > 0


@every_case
def test_padding_equals_no_padding(case):
    if not case.padded:
        pytest.skip("a convolution or a global statistic of this loss sees where the map ends")
    found = maps(case)
    value, gradients = value_and_grads(case, found)
    around = (0, 4, 0, 4)
    padded = Maps(
        [F.pad(s, around, value=9.0) for s in found.student],
        [F.pad(t, around, value=-9.0) for t in found.teacher],
        [F.pad(v, around) for v in found.valid],
        [F.pad(x, around, value=255) for x in found.label],
    )
    again, padded_gradients = value_and_grads(case, padded)
    torch.testing.assert_close(again, value, rtol=1e-12, atol=1e-14)
    for gradient, wider in zip(gradients, padded_gradients, strict=True):
        h, w = gradient.shape[2:]
        torch.testing.assert_close(wider[..., :h, :w], gradient, rtol=1e-10, atol=1e-14)


@every_case
def test_an_image_without_valid_pixels_changes_nothing(case):
    n = case.images
    found = partly_valid(maps(case, n=n + 1))
    fewer = Maps(*([x[:n] for x in part] for part in (found.student, found.teacher, found.valid, found.label)))
    value, gradients = value_and_grads(case, fewer)
    for valid in found.valid:
        valid[n] = False
    again, all_gradients = value_and_grads(case, found)
    torch.testing.assert_close(again, value, rtol=1e-12, atol=1e-14)
    for gradient, wider in zip(gradients, all_gradients, strict=True):
        torch.testing.assert_close(wider[:n], gradient, rtol=1e-10, atol=1e-14)


@every_case
def test_nothing_valid_gives_zero_and_zero_gradients(case):
    found = maps(case)
    value, gradients = value_and_grads(case, replace(found, valid=[v & False for v in found.valid]))
    assert value == 0 and all(g.eq(0).all() for g in gradients)


@every_case
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (2, 3)])
def test_small_maps(case, size):
    value, gradients = value_and_grads(case, maps(case, size=size))
    assert value.isfinite() and all(g.isfinite().all() for g in gradients)
    if case.zero:
        assert value >= 0 and (size != (2, 3) or value > 0)


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision_is_computed_in_float32(case, dtype, tolerance):
    found = maps(case, dtype=dtype)
    value, gradients = value_and_grads(case, found)
    single = replace(found, student=[s.float() for s in found.student], teacher=[t.float() for t in found.teacher])
    same, expected = value_and_grads(case, single)
    assert value.dtype == torch.float32 and value == same
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert gradient.dtype == dtype
        assert (gradient.float() - wanted).abs().max() <= tolerance * wanted.abs().max()


@every_case
def test_float32_agrees_with_float64(case):
    if not case.smooth:
        pytest.skip("draws differ between the types")
    double = maps(case, scale=1.0)
    single = replace(double, student=[s.float() for s in double.student], teacher=[t.float() for t in double.teacher])
    value, gradients = value_and_grads(case, single)
    exact = replace(single, student=[s.double() for s in single.student], teacher=[t.double() for t in single.teacher])
    expected, exact_gradients = value_and_grads(case, exact)
    # A sum of n terms is off by at most n roundoffs of the sum of their sizes. A batch of maps has n = 2 * 7 * 35 = 490
    # elements, and 1e-4 is 1678 roundoffs. What is left, a factor of 3, is for terms that cancel and their own steps.
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=case.noise * ROUNDOFF)
    # An element of a gradient may itself be a difference of such sums; its share of the largest element is as exact.
    for gradient, wanted in zip(gradients, exact_gradients, strict=True):
        assert (gradient.double() - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@every_case
def test_autocast_changes_nothing(case):
    found = maps(case, dtype=torch.float32)
    value, gradients = value_and_grads(case, found)
    student = [s.detach().requires_grad_() for s in found.student]
    with torch.autocast("cpu", torch.bfloat16):
        again = call(case, replace(found, student=student))
    # Outside, as in training: a backward pass would have its own autocast.
    gradients_again = torch.autograd.grad(again, student)
    assert again == value and all(torch.equal(a, b) for a, b in zip(gradients, gradients_again, strict=True))


@every_case
@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e15), (torch.bfloat16, 1e4), (torch.float32, 0.0)])
def test_finite_for_extreme_inputs(case, dtype, scale):
    value, gradients = value_and_grads(case, partly_valid(maps(case, dtype=dtype, scale=scale)))
    assert value.isfinite() and all(g.isfinite().all() for g in gradients)


def pair(free=False, n=2, c=4, h=5, w=7, dtype=torch.float64, scale=2.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(n, c, h, w, generator=g, dtype=torch.float64)
    teacher = scale * torch.randn(n, c + 3 if free else c, h, w, generator=g, dtype=torch.float64)
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


@pytest.mark.parametrize("term", ["kd", "cwd", "posterior_boundary"])
def test_channelwise_terms_refuse_other_channel_counts(term):
    with pytest.raises(UserError, match="4 channels and the teacher's 7"):
        TERMS[term].loss(*pair(free=True))


def test_maps_and_masks_must_fit():
    student, teacher = pair()
    with pytest.raises(ValueError, match="differ in N, H or W"):
        kd(student, teacher[..., :-1])
    with pytest.raises(ValueError, match="does not fit"):
        kd(student, teacher, valid=torch.ones(2, 4, 7, dtype=torch.bool))


def test_choices_of_a_loss_are_those_of_its_tables():
    """What the annotation of an option allows is what the loss looks up."""
    choices = [("boundary", "operator", OPERATORS), ("boundary", "distance", DISTANCES)]
    choices += [("kd", "normalisation", NORMALISATIONS), ("holistic", "critic_optimizer", OPTIMIZERS)]
    choices += [("holistic", "kind", KINDS), ("mgd", "mask", MASKS)]
    for term, option, table in choices:
        assert get_args(term_options(term).model_fields[option].annotation) == tuple(table)


def test_a_word_that_is_no_choice_is_never_silently_another():
    with pytest.raises(KeyError, match="sobel"):
        boundary(*pair(), operator="sobel")
    with pytest.raises(KeyError, match="huber"):
        boundary(*pair(), distance="huber")
    with pytest.raises(KeyError, match="mean"):
        kd(*pair(), normalisation="mean")


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


def test_residual_subtracts_the_mean_of_the_valid_surroundings():
    features = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    valid = torch.rand(2, 5, 4) > 0.3
    blanked, weight = features * valid.unsqueeze(1), valid.unsqueeze(1).double()
    means = F.avg_pool2d(blanked, 3, 1, 1) / F.avg_pool2d(weight, 3, 1, 1).clamp(min=1 / 9)
    length = torch.linalg.vector_norm((blanked - means) * weight, dim=1)
    rms = (blanked.square().sum((1, 2, 3)) / valid.sum((1, 2))).sqrt()
    expected = (length / rms[:, None, None]).flatten(1)
    strength, counted = residual(blanked, valid)
    assert torch.equal(counted, valid.flatten(1))
    torch.testing.assert_close(strength, expected, rtol=1e-12, atol=1e-11)
    slopes = [torch.autograd.grad(x.square().sum(), features, retain_graph=True)[0] for x in (strength, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-12)


def test_posterior_boundary_by_hand():
    teacher, student = row((90, 0), (90, 0), (0, 90)), row((0, 0), (0, 0), (0, 0))
    # Both classes have teacher energies (0, 1, 1), total 2; with epsilon .5: (1, 3, 3) / 7, the student's 1/3.
    expected = (1 / 7) * math.log(3 / 7) + 2 * (3 / 7) * math.log(9 / 7)
    assert posterior_boundary(student, teacher, epsilon=0.5, min_energy=1.9).item() == pytest.approx(expected)
    assert posterior_boundary(student, teacher, epsilon=0.5, min_energy=2.1) == 0
