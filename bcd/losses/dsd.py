"""Double similarity distillation: how attention changes from layer to layer, and which classes occur together.

Feng et al., "Double Similarity Distillation for Semantic Image Segmentation" (arXiv 2107.08591), as re-implemented in
CIRKD (losses/dsd.py), the only public code. It has no masks.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.config.ranges import AtLeastOne, Positive
from bcd.errors import UserError
from bcd.losses.attention import energy
from bcd.losses.masked import UNIT_EPS, full_precision, masked_avg_pool, masked_mean, prepare


def psd(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    *,
    valid: Sequence[Tensor | None] | None = None,
    p: AtLeastOne = 2.0,
) -> Tensor:
    """Mean over pairs of taps m < n and over valid cells of (R_s - R_t)^2, R = unit(Q_n - Q_m).

    Q is the energy map of a tap (mean over channels of |f|^p) as a unit vector over the image's cells. CIRKD's layers
    all have one size; here energies are first averaged, over valid pixels, to the smallest height and the smallest
    width among the taps. A cell is valid where every tap has a valid pixel in it.

    Args:
        student, teacher: features of at least two taps, fine to coarse; each (N, C, H, W), all free in C, H and W
            but for equal H and W of student and teacher at a tap.
        valid: bool (N, H, W) for each tap.
        p: the power of the energy, >= 1.

    Raises:
        UserError: a single tap, or p < 1.
    """
    if len(student) < 2:
        raise UserError("psd compares taps with each other: name at least two taps, such as stage3 and stage4")
    masks = valid or [None] * len(student)
    prepared = [prepare(s, t, v) for s, t, v in zip(student, teacher, masks, strict=True)]
    size = min(s.shape[2] for s, _, _ in prepared), min(s.shape[3] for s, _, _ in prepared)
    cells = torch.stack([_shares(v, size) > 0 for _, _, v in prepared]).all(0)
    of_student = _residuals([_attention(s, v, cells, p) for s, _, v in prepared])
    of_teacher = _residuals([_attention(t, v, cells, p) for _, t, v in prepared])
    gaps = [(s - t).square() for s, t in zip(of_student, of_teacher, strict=True)]
    return masked_mean(torch.stack(gaps).mean(0), cells.flatten(1))


def _shares(valid: Tensor, size: tuple[int, int]) -> Tensor:
    """The share of valid pixels in each cell of a grid of `size`, float (N, *size)."""
    return F.adaptive_avg_pool2d(valid.float(), size)


def _attention(features: Tensor, valid: Tensor, cells: Tensor, p: float) -> Tensor:
    """Energy averaged over the valid pixels of each cell, as unit vectors (N, cells); 0 outside `cells`."""
    size = cells.shape[1], cells.shape[2]
    pooled = F.adaptive_avg_pool2d(energy(features, p), size) * cells
    shares = _shares(valid, size).to(pooled.dtype).masked_fill(~cells, 1)
    return F.normalize((pooled / shares).flatten(1), dim=1)


def _residuals(attention: Sequence[Tensor]) -> Iterator[Tensor]:
    # The generous bound: where two maps agree but for rounding, their difference has no direction.
    return (F.normalize(b - a, dim=1, eps=UNIT_EPS) for a, b in combinations(attention, 2))


@full_precision
def csd(student: Tensor, teacher: Tensor, *, valid: Tensor | None = None, temperature: Positive = 4.0) -> Tensor:
    """Mean over images and channel pairs of (G_s - G_t)^2, G = phi phi^T, phi = softmax over pixels of f / T.

    f is averaged over the valid pixels of 2x2 windows before. The values are small, around 1e-7 on logits.

    Args:
        student, teacher: logits or features (N, C, H, W), compared channel by channel.
        valid: bool (N, H, W).
        temperature: T > 0.

    Raises:
        UserError: the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    student, teacher = (_co_occurrence(x / temperature, valid) for x in (student, teacher))
    return masked_mean((student - teacher).square().mean((1, 2)), valid.flatten(1).any(1))


def _co_occurrence(logits: Tensor, valid: Tensor) -> Tensor:
    """(N, C, C), in [0, 1]."""
    pooled, cells = masked_avg_pool(logits, valid, 2)
    # Finite: an image may have no valid pixel.
    pooled = pooled.masked_fill(~cells.unsqueeze(1), torch.finfo(logits.dtype).min / 2)
    phi = F.softmax(pooled.flatten(2), dim=-1)
    return torch.bmm(phi, phi.mT)
