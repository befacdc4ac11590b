"""Neuron selectivity transfer: the set of places that the channels select."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.losses.masked import full_precision, masked_mean, prepare


@full_precision
def nst(student: Tensor, teacher: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Squared maximum mean discrepancy between the sets of channel maps, mean over images.

    That is k(s, s) + k(t, t) - 2 k(s, t), with k = mean over channel pairs of <a, b>^2. Each channel's map is a unit
    vector over the image's valid pixels. Huang & Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity
    Transfer" (arXiv 1707.01219), with its polynomial kernel as in RepDistiller (distiller_zoo/NST.py). That code has no
    mask, and pools maps of different height to a square; here the maps arrive at the same size.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W).
        valid: bool (N, H, W).
    """
    student, teacher, valid = prepare(student, teacher, valid)
    student, teacher = (F.normalize(x.flatten(2), dim=2) for x in (student, teacher))
    discrepancy = _kernel(student, student) + _kernel(teacher, teacher) - 2 * _kernel(student, teacher)
    return masked_mean(discrepancy, valid.flatten(1).any(1))


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared product of the channels of (N, C_a, L) and (N, C_b, L), as (N,)."""
    return torch.bmm(a, b.mT).square().mean((1, 2))
