"""Context distillation: the relation of every pixel to every other, compared row by row."""

import importlib.util
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bcd.losses.boundary import UNIT_EPS
from bcd.losses.masked import full_precision, prepare

# Rows and columns of one tile of relations: small enough for the caches, large enough for products at full speed.
TILE = (320, 448)
# Up to this many relations of an image the tiles are kept from the first pass to the second rather than made again.
KEPT_RELATIONS = 1 << 20
# Largest logit whose exponential is taken as it is: sums of exp(40) stay far from overflow, exp(-40) from underflow.
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
        temperature: tau > 0.
        normalise: scale each pixel's feature to unit length, so that relations are cosine similarities. Without it
            long features dominate the rows and tau needs the scale of the features.
    """
    both_bfloat16 = student.dtype == teacher.dtype == torch.bfloat16
    product_dtype = torch.bfloat16 if both_bfloat16 else torch.float32
    student, teacher, valid = prepare(student, teacher, valid)
    return _SelfRelationKL.apply(student, teacher, valid, temperature, normalise, product_dtype)


class _SelfRelationKL(torch.autograd.Function):
    """A scalar loss whose gradient is known in closed form, so the forward pass takes it along.

    With S_ij = f_i . f_j, f the scaled features, dL/dS = (R_s - R_t) / (number of valid pixels of the batch). As S is
    symmetric, dL/df_i = sum_j M_ij f_j with the symmetric M = dL/dS + (dL/dS)^T: one product instead of two, and each
    tile of S above the diagonal serves the one below it. One tensor of the size of the student's features is kept.
    """

    @staticmethod
    def forward(ctx, student, teacher, valid, temperature, normalise, product_dtype):
        fused = _fused_form(student)
        loss = student.new_zeros(())
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        weight = 1 / valid.sum(dtype=student.dtype).clamp(min=1)
        for n in range(len(student)):
            whole = bool(valid[n].all())
            keep = slice(None) if whole else valid[n].flatten().nonzero().squeeze(1)
            if gradient is not None and not whole:
                gradient[n] = 0
            s, scale, unit = _tokens(student[n], keep, temperature, normalise)
            t, t_scale, _ = _tokens(teacher[n], keep, temperature, normalise)
            if not len(s):
                continue
            if fused:
                value, slope = fused(s, t, (scale, t_scale), gradient is not None, product_dtype)
            else:
                value, slope = self_relation_kl(s, t, gradient is not None)
            loss += value
            del t
            if gradient is not None:  # of a unit vector, the part along itself goes nowhere
                along = torch.linalg.vecdot(slope, s).mul_(temperature).unsqueeze(1).masked_fill_(~unit, 0)
                slope.addcmul_(s, along, value=-1).mul_(scale * weight)
                gradient[n].flatten(1)[:, keep] = slope.mT
        ctx.save_for_backward(gradient)
        return loss * weight

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None, None, None


def _fused_form(features: Tensor) -> Callable | None:
    """The Triton form of `self_relation_kl`, or None where it cannot run."""
    if not features.is_cuda or features.dtype != torch.float32 or importlib.util.find_spec("triton") is None:
        return None
    if torch.cuda.get_device_capability(features.device) < (8, 0):  # no products of bfloat16 or TF32
        return None
    from bcd.losses.context_triton import fused_self_relation_kl

    return fused_self_relation_kl


def _tokens(
    features: Tensor, keep: slice | Tensor, temperature: float, normalise: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The kept pixels of (C, H, W), scaled so that their products are logits, (L, C).

    Further the scales (L, 1), and whether each was chosen by the pixel's length, bool (L, 1).
    """
    tokens = features.flatten(1).mT[keep].clone(memory_format=torch.contiguous_format)
    norm = torch.linalg.vector_norm(tokens, dim=1, keepdim=True)
    unit = norm > UNIT_EPS if normalise else torch.zeros_like(norm, dtype=torch.bool)
    norm = norm.clamp_(min=UNIT_EPS) if normalise else torch.ones_like(norm)
    scale = 1 / (norm * temperature**0.5)
    return tokens.mul_(scale), scale, unit


def self_relation_kl(
    s: Tensor, t: Tensor, differentiate: bool = True, *, tile: tuple[int, int] = TILE, kept: int = KEPT_RELATIONS
) -> tuple[Tensor, Tensor | None]:
    """Sum over i of KL(R_t[i] || R_s[i]), R = softmax(F F^T), for tokens s (L, C_s) and t (L, C_t).

    Returns the sum and, if `differentiate`, its gradient by `s`. `tile` has the rows and columns of R held at a time;
    up to `kept` relations, all are. The result depends on both only through rounding.
    """
    gradient = torch.zeros_like(s) if differentiate else None
    longest = max(torch.linalg.vector_norm(x, dim=1).max() for x in (s, t))
    if longest**2 > SAFE_LOGIT:
        return _by_rows(s, t, gradient, max(1, tile[0] * tile[1] // len(s))), gradient
    return _by_tiles(s, t, gradient, tile, keep=len(s) ** 2 <= kept), gradient


def _by_tiles(s: Tensor, t: Tensor, gradient: Tensor | None, tile: tuple[int, int], keep: bool) -> Tensor:
    """The loss, adding its gradient to `gradient`; takes exp(S) without a shift, which needs small logits.

    E = exp(S) is symmetric like S, so one pass over the upper triangle gives the row sums Z, and with them
    KL_i = sum_j E_t (S_t - S_s) / Z_t + log(Z_s / Z_t). A second pass over it gives the gradient.
    """
    sums = s.new_zeros(3, len(s))
    kept = []
    for i, j, seen, block in _tiles(s, t, tile, fresh=keep):
        e_s, moment, e_t = block
        torch.exp(moment, out=e_t)
        moment.sub_(e_s).mul_(e_t)
        e_s.exp_()
        sums[:, i].add_(block.sum(2))
        sums[:, j][:, seen:].add_(block[..., seen:].sum(1))
        if keep:
            kept.append((i, j, seen, (e_s, e_t, moment)))
    z_s, moment, z_t = sums
    if gradient is not None:
        r_s, r_t = 1 / z_s, 1 / z_t
        for i, j, seen, (e_s, e_t, factor) in kept or _exponentials(s, t, tile):
            e_s.mul_(torch.add(r_s[i, None], r_s[j], out=factor))
            e_t.mul_(torch.add(r_t[i, None], r_t[j], out=factor))
            slope = e_s.sub_(e_t)
            gradient[i].addmm_(slope, s[j])
            gradient[j][seen:].addmm_(slope[:, seen:].mT, s[i])
    # Rounding must not make a divergence negative.
    return (moment / z_t + (z_s / z_t).log()).sum().clamp(min=0)


def _tiles(s: Tensor, t: Tensor, tile: tuple[int, int], fresh: bool) -> Iterator[tuple[slice, slice, int, Tensor]]:
    """The upper triangle of S_s and S_t in tiles.

    Yields rows i, columns j, how many of the columns lie in the square on the diagonal, which holds its own mirror
    image, and (3, rows, columns): the logits of s, those of t, and room for as many again. Unless `fresh`, all share
    one piece of memory.
    """
    memory = s.new_empty(0 if fresh else 3 * tile[0] * tile[1])
    for i in _spans(0, len(s), tile[0]):
        s_i, t_i = s[i], t[i]
        for j in _spans(i.start, len(s), tile[1]):
            shape = 3, i.stop - i.start, j.stop - j.start
            block = s.new_empty(shape) if fresh else memory[: math.prod(shape)].view(shape)
            torch.mm(s_i, s[j].mT, out=block[0])
            torch.mm(t_i, t[j].mT, out=block[1])
            yield i, j, max(0, i.stop - j.start), block


def _exponentials(s: Tensor, t: Tensor, tile: tuple[int, int]) -> Iterator[tuple[slice, slice, int, Tensor]]:
    for i, j, seen, block in _tiles(s, t, tile, fresh=False):
        block[:2].exp_()
        yield i, j, seen, block


def _by_rows(s: Tensor, t: Tensor, gradient: Tensor | None, rows: int) -> Tensor:
    """As `_by_tiles` for logits of any size: whole rows, from which the largest logit is subtracted."""
    loss = s.new_zeros(())
    for i in _spans(0, len(s), rows):
        log_s, log_t = (F.log_softmax(x[i] @ x.mT, dim=1) for x in (s, t))
        relation = log_t.exp()
        loss += log_t.sub_(log_s).mul_(relation).sum()
        if gradient is not None:
            slope = log_s.exp_().sub_(relation)
            gradient[i].addmm_(slope, s)
            gradient.addmm_(slope.mT, s[i])
    return loss


def _spans(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(k, min(k + size, stop)) for k in range(start, stop, size))


TILE_ELEMENTS = 3 * TILE[0] * TILE[1]
