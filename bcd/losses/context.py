"""Context distillation: the relation of every pixel to every other, compared row by row."""

import functools
import importlib.util
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bcd.losses.boundary import UNIT_EPS
from bcd.losses.masked import full_precision, prepare

# Rows and columns of one tile of relations. Three tiles stay in a second-level cache of 1 MiB, and the products are
# still large enough to run at full speed; `benchmarks/context.py` shows both.
TILE = (192, 384)
# Largest logit whose exponential is taken as it is: exp(40) leaves room for sums in float32, and exp(-40) is not 0.
SAFE_LOGIT = 40.0


@full_precision
def context(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    temperature: float = 0.1,
    normalise: bool = True,
) -> Tensor:
    """Mean over valid pixels i of KL(R_t[i] || R_s[i]), R = softmax over the image's valid pixels of F^T F / tau.

    Our definition of the "pixel-level self-relations" of arXiv 2401.13174, whose equations are not at hand. Channel
    counts may differ. Exact; the memory grows with the number of pixels, not with its square.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W).
        valid: bool (N, H, W).
        temperature: tau > 0. A slower form is used below 1 / SAFE_LOGIT.
        normalise: scale each pixel's feature to unit length, so that relations are cosine similarities. Without it
            long features dominate the rows and tau needs the scale of the features.
    """
    student, teacher, valid = prepare(student, teacher, valid)
    return _SelfRelationKL.apply(student, teacher, valid, temperature, normalise)


class _SelfRelationKL(torch.autograd.Function):
    """A scalar loss whose gradient is known in closed form, so the forward pass takes it along.

    With S_ij = f_i . f_j, f the scaled features, dL/dS = (R_s - R_t) / (number of valid pixels of the batch). As S is
    symmetric, dL/df_i = sum_j M_ij f_j with the symmetric M = dL/dS + (dL/dS)^T: one product instead of two, and each
    tile of S above the diagonal serves the one below it. One tensor of the size of the student's features is kept.
    """

    @staticmethod
    def forward(ctx, student, teacher, valid, temperature, normalise):
        loss = student.new_zeros(())
        gradient = torch.zeros_like(student) if ctx.needs_input_grad[0] else None
        weight = 1 / valid.sum(dtype=student.dtype).clamp(min=1)
        for n in range(len(student)):
            keep = slice(None) if valid[n].all() else valid[n].flatten().nonzero().squeeze(1)
            s, scale = _tokens(student[n], keep, temperature, normalise)
            if not len(s):
                continue
            value, slope = self_relation_kl(s, _tokens(teacher[n], keep, temperature, normalise)[0], gradient is not None)
            loss += value
            if gradient is not None:
                if normalise:  # the part along the feature cannot change its direction
                    along = torch.linalg.vecdot(slope, s).unsqueeze(1) * temperature
                    slope.addcmul_(s, along.masked_fill_(scale * temperature**0.5 >= 1 / UNIT_EPS, 0), value=-1)
                gradient[n].flatten(1)[:, keep] = slope.mul_(scale * weight).mT
        ctx.save_for_backward(gradient)
        return loss * weight

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None, None


def _tokens(features: Tensor, keep: slice | Tensor, temperature: float, normalise: bool) -> tuple[Tensor, Tensor]:
    """The kept pixels of (C, H, W), scaled so that their products are logits, (L, C), and the scales (L, 1)."""
    tokens = features.flatten(1).mT[keep].clone(memory_format=torch.contiguous_format)
    norm = torch.linalg.vector_norm(tokens, dim=1, keepdim=True).clamp_(min=UNIT_EPS) if normalise else 1
    scale = 1 / (norm * temperature**0.5)
    return tokens.mul_(scale), scale


def self_relation_kl(
    s: Tensor, t: Tensor, differentiate: bool = True, tile: tuple[int, int] = TILE
) -> tuple[Tensor, Tensor | None]:
    """Sum over i of KL(R_t[i] || R_s[i]) for tokens (L, C_s) and (L, C_t), R = softmax(F F^T), and its gradient by `s`.

    `tile` has the rows and columns of R held at a time; the result depends on it only through rounding.
    """
    longest = max(torch.linalg.vector_norm(x, dim=1).max() for x in (s, t))
    gradient = torch.zeros_like(s) if differentiate else None
    return (_by_tiles if longest**2 <= SAFE_LOGIT else _by_rows)(s, t, gradient, tile), gradient


def _by_tiles(s: Tensor, t: Tensor, gradient: Tensor | None, tile: tuple[int, int]) -> Tensor:
    """The loss, adding its gradient to `gradient`; takes exp(S) without a shift, which needs small logits.

    exp(S) is symmetric like S, so one pass over the upper triangle gives the row sums Z. The gradient takes a second
    pass, which repeats the exponentials rather than store them.
    """
    sums = s.new_zeros(3, len(s))
    for i, j, seen, block in _tiles(s, t, tile):
        torch.sub(block[1], block[0], out=block[2])
        block[:2].exp_()
        block[2].mul_(block[1])
        sums[:, i].add_(block.sum(2))
        sums[:, j][:, seen:].add_(block[..., seen:].sum(1))
    z_s, z_t, moment = sums
    if gradient is not None:
        r_s, r_t = 1 / z_s, 1 / z_t
        for i, j, seen, block in _tiles(s, t, tile):
            block[:2].exp_()
            slope, relation, factor = block
            slope.mul_(torch.add(r_s[i, None], r_s[j], out=factor))
            relation.mul_(torch.add(r_t[i, None], r_t[j], out=factor))
            slope.sub_(relation)
            gradient[i].addmm_(slope, s[j])
            gradient[j][seen:].addmm_(slope[:, seen:].mT, s[i])
    # Rounding must not make a divergence negative.
    return (moment / z_t + (z_s / z_t).log()).sum().clamp(min=0)


def _tiles(s: Tensor, t: Tensor, tile: tuple[int, int]) -> Iterator[tuple[slice, slice, int, Tensor]]:
    """The upper triangle of S_s and S_t in tiles.

    Yields rows i, columns j, how many of the columns lie in the square on the diagonal, which holds its own mirror
    image, and (3, rows, columns): the logits of s, of t, and room for as many again. Valid until the next is asked for.
    """
    memory = s.new_empty(3 * tile[0] * tile[1])
    for i in _spans(0, len(s), tile[0]):
        s_i, t_i, rows = s[i], t[i], i.stop - i.start
        for j in _spans(i.start, len(s), tile[1]):
            columns = j.stop - j.start
            block = memory[: 3 * rows * columns].view(3, rows, columns)
            torch.mm(s_i, s[j].mT, out=block[0])
            torch.mm(t_i, t[j].mT, out=block[1])
            yield i, j, max(0, i.stop - j.start), block


def _spans(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(k, min(k + size, stop)) for k in range(start, stop, size))


def _by_rows(s: Tensor, t: Tensor, gradient: Tensor | None, tile: tuple[int, int]) -> Tensor:
    """As `_by_tiles` for logits of any size: whole rows, from which the largest logit is subtracted."""
    loss = s.new_zeros(())
    for i in _spans(0, len(s), max(1, tile[0] * tile[1] // len(s))):
        log_s, log_t = (F.log_softmax(x[i] @ x.mT, dim=1) for x in (s, t))
        relation = log_t.exp()
        loss += log_t.sub_(log_s).mul_(relation).sum()
        if gradient is not None:
            slope = log_s.exp_().sub_(relation)
            gradient[i].addmm_(slope, s)
            gradient.addmm_(slope.mT, s[i])
    return loss


TILE_ELEMENTS = 3*TILE[0]*TILE[1]
