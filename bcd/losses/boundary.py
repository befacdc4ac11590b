"""Boundary distillation: turn a map into boundary strengths without labels and match the student's to the teacher's.

The formulas are ours. The boundary and context papers (arXiv 2401.13174) are known here by their abstracts only;
docs/reference/methods.md says which of their words each operator answers.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bcd.config.ranges import NonNegative, Positive
from bcd.losses.masked import UNIT_EPS, masked_mean, prepare, spatial_kl

# A residual no longer than this has no gradient, as the square root has none to give at zero.
LENGTH_EPS = 1e-18


def boundary(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    operator: Literal["affinity", "residual", "attention"] = "affinity",
    distance: Literal["l1", "l2"] = "l1",
) -> Tensor:
    """Mean difference between the boundary strengths of two feature maps; channel counts may differ.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W).
        valid: bool (N, H, W).
        operator: `affinity`, `residual` or `attention`, the functions of this module.
        distance: `l1` (absolute) or `l2` (squared) difference of the strengths.
    """
    strength, length = OPERATORS[operator], DISTANCES[distance]
    student, teacher, valid = prepare(student, teacher, valid)
    student_strength, counted = strength(student, valid)
    return masked_mean(length(student_strength - strength(teacher, valid)[0]), counted)


def affinity(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """1 - cosine similarity, in [0, 2], of every pixel with its right and its lower neighbour.

    Args:
        features: float (N, C, H, W).
        valid: bool (N, H, W).

    Returns:
        strengths (N, P) of the P = H (W-1) + (H-1) W pairs, and the bool (N, P) of pairs with two valid pixels.
    """
    # Not F.normalize: its norm over channels is several times slower than this on a CPU.
    inverse = features.square().sum(1).clamp(min=UNIT_EPS**2).rsqrt()
    products = ((a * b).sum(1) for a, b in _neighbours(features))
    scales = (u * v for u, v in _neighbours(inverse))
    return _flat(1 - product * scale for product, scale in zip(products, scales, strict=True)), _valid_pairs(valid)


def residual(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Length of each feature minus the average of its valid 3x3 surroundings, over the image's rms feature length.

    The division makes the strength free of the features' scale and channel count.
    Arguments as for `affinity`; returns strengths >= 0 and their mask, both (N, H W).
    """
    weight = valid.unsqueeze(1).to(features.dtype)
    surroundings = _WindowSum.apply(features) / _WindowSum.apply(weight).clamp(min=1)
    # Sums of squares, as over channels vector_norm is much slower on a CPU.
    energy = ((features - surroundings) * weight).square().sum(1)
    rms = _image_mean(features.square().sum(1), valid).clamp(min=UNIT_EPS**2).sqrt()
    return (energy.clamp(min=LENGTH_EPS**2).sqrt() / rms).flatten(1), valid.flatten(1)


class _WindowSum(torch.autograd.Function):
    """Sum over the 3x3 window around each pixel, zeros outside of the map; it is its own transpose.

    In place of F.avg_pool2d, which is much slower on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return _window_sum(maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        return _window_sum(grad_output)


def _window_sum(maps: Tensor) -> Tensor:
    for dim in (2, 3):
        inner = maps.shape[dim] - 1
        total = maps.clone()
        total.narrow(dim, 1, inner).add_(maps.narrow(dim, 0, inner))
        total.narrow(dim, 0, inner).add_(maps.narrow(dim, 1, inner))
        maps = total
    return maps


def attention(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Jump of the channel energy (sum of squares over channels, image mean 1) between neighbouring pixels.

    The energy map is the activation attention of Zagoruyko & Komodakis (arXiv 1612.03928), divided by its mean.
    Arguments as for `affinity`; returns strengths >= 0 of the same pairs and their mask.
    """
    energy = features.square().sum(1)
    energy = energy / _image_mean(energy, valid).clamp(min=UNIT_EPS**2)
    return _flat((a - b).abs() for a, b in _neighbours(energy)), _valid_pairs(valid)


OPERATORS = {"affinity": affinity, "residual": residual, "attention": attention}
DISTANCES = {"l1": torch.abs, "l2": torch.square}


def posterior_boundary(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    temperature: Positive = 1.0,
    epsilon: Positive = 2e-3,
    min_energy: NonNegative = 2.0,
) -> Tensor:
    """Match where each class's posterior changes: every class boundary counts alike, however thin or short.

    With p = softmax over classes of z / T, the energy of class c at pixel i is the sum over its valid 4-neighbours j
    of |p_c(i) - p_c(j)|. Energy + epsilon, normalised over the valid pixels, is a distribution e_c. The loss is the
    mean of KL(e_c teacher || e_c student) over the (image, class) pairs whose total teacher energy, without epsilon,
    exceeds `min_energy` (a full jump between two pixels adds 2).

    Args:
        student, teacher: logits (N, C, H, W) of the same classes.
        valid: bool (N, H, W).
        temperature: T > 0.
        epsilon: floor of the energy, > 0; larger values flatten the distributions.
        min_energy: classes whose boundary is weaker in the teacher are left out.

    Raises:
        UserError: the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    student_energy = _posterior_energy(student / temperature, valid)
    teacher_energy = _posterior_energy(teacher / temperature, valid)
    divergence = spatial_kl((student_energy + epsilon).log(), (teacher_energy + epsilon).log(), valid)
    return masked_mean(divergence, teacher_energy.sum((2, 3)) > min_energy)


def _posterior_energy(logits: Tensor, valid: Tensor) -> Tensor:
    jumps = ((a - b).abs() for a, b in _neighbours(F.softmax(logits, dim=1)))
    pairs = ((a & b).unsqueeze(1) for a, b in _neighbours(valid))
    across, down = (jump * pair for jump, pair in zip(jumps, pairs, strict=True))
    return F.pad(across, (1, 0)) + F.pad(across, (0, 1)) + F.pad(down, (0, 0, 1, 0)) + F.pad(down, (0, 0, 0, 1))


def _neighbours(x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(left, right) and (upper, lower) partners of all neighbouring pixels of (..., H, W)."""
    return (x[..., :-1], x[..., 1:]), (x[..., :-1, :], x[..., 1:, :])


def _valid_pairs(valid: Tensor) -> Tensor:
    return _flat(a & b for a, b in _neighbours(valid))


def _flat(maps: Iterable[Tensor]) -> Tensor:
    return torch.cat([m.flatten(1) for m in maps], dim=1)


def _image_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of (N, H, W) over each image's valid pixels, as (N, 1, 1)."""
    return (values * valid).sum((1, 2), keepdim=True) / valid.sum((1, 2), keepdim=True).clamp(min=1)
