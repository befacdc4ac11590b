"""Pair-wise structured distillation: the cosine similarity of every region to every other."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.config.ranges import Count, Fraction
from bcd.errors import UserError
from bcd.losses.masked import UNIT_EPS, full_precision, masked_max_pool, prepare
from bcd.losses.tiled import TILE_ELEMENTS, known_gradient


@full_precision
def skd(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    pool: Count = 2,
    scale: Fraction = 0.0,
    official: bool = False,
) -> Tensor:
    """Mean over pairs of nodes of one image of (A_s - A_t)^2, A = cosine similarity of max-pooled features.

    Liu et al., "Structured Knowledge Distillation for Dense Prediction" (arXiv 1903.04197). The default is CIRKD's form
    (losses/skd.py). The authors' (github.com/irfanICMLL/structure_knowledge_distillation, utils/criterion.py) is
    `scale: 0.5, official: true`. Neither has a mask: here a node is the maximum over its valid pixels, a node without
    any takes no part, and the mean over an image's pairs is averaged over the images that have nodes. Exact; the memory
    grows with the number of nodes, not with its square.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W).
        valid: bool (N, H, W).
        pool: side of the pooling windows, >= 1; not used with `scale`.
        scale: if > 0, the windows' sides as a share of the map's, at least 1 pixel; 0.5 leaves two nodes a side.
        official: treat the length of a feature as a constant in the gradient and refuse maps smaller than 1 / `scale`,
            like the authors' code.

    Raises:
        UserError: pool < 1, scale outside [0, 1], or a map too small for the official form.
    """
    student, teacher, valid = prepare(student, teacher, valid)
    window = _window(student.shape[2], student.shape[3], pool, scale, official)
    (student, nodes), (teacher, _) = (masked_max_pool(x, valid, window) for x in (student, teacher))
    student, teacher = (_unit(x.flatten(2), official) for x in (student, teacher))
    return mean_squared_gap(student, teacher, nodes.sum((1, 2)))


def _window(height: int, width: int, pool: int, scale: float, official: bool) -> tuple[int, int]:
    if pool < 1 or not 0 <= scale <= 1:
        raise UserError(f"skd: pool must be at least 1 and scale lie in [0, 1], not {pool} and {scale}")
    if scale == 0:
        return pool, pool
    window = int(height * scale), int(width * scale)
    if official and min(window) == 0:
        raise UserError(
            f"skd: scale {scale} leaves no pixel of a {height}x{width} map, on which the official code fails: "
            "raise scale, tap a larger map or set official: false"
        )
    return max(1, window[0]), max(1, window[1])


def _unit(nodes: Tensor, official: bool) -> Tensor:
    if official:
        return nodes / (torch.linalg.vector_norm(nodes.detach(), dim=1, keepdim=True) + 1e-8)
    return F.normalize(nodes, dim=1, eps=UNIT_EPS)


def mean_squared_gap(student: Tensor, teacher: Tensor, count: Tensor, rows: int | None = None) -> Tensor:
    """The loss of `skd` on nodes (N, C_s, L) and (N, C_t, L), 0 where there is no node, and their number `count` (N,).

    `rows` of the L x L relations of one image are held at a time (default: as many as fit TILE_ELEMENTS); the result
    depends on it only through rounding.
    """
    images = (count > 0).sum().clamp(min=1)
    weight = (count.to(student.dtype).clamp(min=1).square() * images).reciprocal()
    rows = rows or max(1, TILE_ELEMENTS // student.shape[2])
    gradient = torch.zeros_like(student)
    return known_gradient(student, _squared_gap(student.detach(), teacher, weight, rows, gradient), gradient)


@torch.no_grad()
def _squared_gap(student: Tensor, teacher: Tensor, weight: Tensor, rows: int, gradient: Tensor) -> Tensor:
    """Sum over images of weight * ||S^T S - T^T T||^2; adds to `gradient`, a tensor like `student`.

    With D = S^T S - T^T T, which is symmetric, the gradient is 4 weight S D. Only the part of D right of its diagonal
    blocks is computed. The shorter way over the C x C products S S^T, S T^T and T T^T is not taken: the loss would be
    the small difference of large numbers.
    """
    loss = student.new_zeros(())
    for s, t, factor, slope in zip(student, teacher, weight, gradient, strict=True):
        for start in range(0, s.shape[1], rows):
            tile, rest, after = slice(start, start + rows), slice(start, None), slice(start + rows, None)
            gap = (s[:, tile].mT @ s[:, rest]).sub_(t[:, tile].mT @ t[:, rest])
            square = gap.square()
            loss += factor * (2 * square.sum() - square[:, :rows].sum())
            gap *= 4 * factor
            slope[:, tile].addmm_(s[:, rest], gap.mT)
            slope[:, after].addmm_(s[:, tile], gap[:, rows:])
    return loss
