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
    counts may differ. Exact; the memory grows with the number of pixels, not with its square. On a GPU with Triton
    one fused kernel per pass does the same, with products of half inputs in half precision.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W).
        valid: bool (N, H, W).
        temperature: tau > 0. Below 1 / SAFE_LOGIT a slower form is used.
        normalise: scale each pixel's feature to unit length, so that relations are cosine similarities. Without it
            long features dominate the rows and tau needs the scale of the features.
    """
    given = student.dtype
    student, teacher, valid = prepare(student, teacher, valid)
    pixels = student.flatten(2), teacher.flatten(2), valid.flatten(1)
    return _SelfRelationKL.apply(*pixels, temperature, normalise, given)


class _SelfRelationKL(torch.autograd.Function):
    """A scalar loss whose gradient is known in closed form, so the forward pass takes it along.

    With S_ij = f_i . f_j, f the scaled features, dL/dS = (R_s - R_t) / (number of valid pixels of the batch). As S is
    symmetric, dL/df_i = sum_j M_ij f_j with the symmetric M = dL/dS + (dL/dS)^T: one product instead of two, and each
    tile of S above the diagonal serves the one below it. One tensor of the size of the student's features is kept.
    """

    @staticmethod
    def forward(ctx, student, teacher, valid, temperature, normalise, given):
        scales = [_scale(x, temperature, normalise) for x in (student, teacher)]
        differentiate = ctx.needs_input_grad[0]
        if student.is_cuda and _has_triton():
            from bcd.losses.context_triton import fused_kl

            loss, gradient = fused_kl(student, teacher, *scales, valid, differentiate, given)
        else:
            loss, gradient = tiled_kl(student, teacher, *scales, valid, differentiate)
        weight = 1 / valid.sum().clamp(min=1)
        if differentiate:
            scale = scales[0]
            if normalise:  # the part along the feature cannot change its direction
                along = scale * temperature * (scale * (gradient * student).sum(1, keepdim=True))
                along.masked_fill_(scale * temperature**0.5 >= 1 / UNIT_EPS, 0)
                gradient.addcmul_(student, along, value=-1)
            gradient.mul_(scale * weight)
            gradient = gradient.contiguous()
        ctx.save_for_backward(gradient)
        return loss * weight

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None, None, None


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _scale(features: Tensor, temperature: float, normalise: bool) -> Tensor:
    """Factors (N, 1, L) of the pixels of `features` (N, C, L), after which f_i . f_j is the logit of the relation."""
    if not normalise:
        return torch.full_like(features[:, :1], temperature**-0.5)
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return (norm.clamp_(min=UNIT_EPS) * temperature**0.5).reciprocal_()


def tiled_kl(
    student: Tensor,
    teacher: Tensor,
    student_scale: Tensor,
    teacher_scale: Tensor,
    valid: Tensor,
    differentiate: bool,
    tile: tuple[int, int] = TILE,
) -> tuple[Tensor, Tensor | None]:
    """Sum over the valid pixels i of KL(R_t[i] || R_s[i]), and its gradient by the scaled student's features.

    Args:
        student, teacher: features (N, C_s, L) and (N, C_t, L).
        student_scale, teacher_scale: (N, 1, L), see `_scale`.
        valid: bool (N, L).
        differentiate: whether the gradient is wanted.
        tile: rows and columns of the relations held at a time; the result depends on it only through rounding.

    Returns:
        A scalar, and (N, C_s, L) or None.
    """
    loss = student.new_zeros(())
    gradient = torch.zeros_like(student.mT, memory_format=torch.contiguous_format) if differentiate else None
    for n in range(len(student)):
        whole = bool(valid[n].all())
        keep = slice(None) if whole else valid[n].nonzero().squeeze(1)
        s, t = (
            x[n].mT[keep].clone(memory_format=torch.contiguous_format).mul_(scale[n].mT[keep])
            for x, scale in ((student, student_scale), (teacher, teacher_scale))
        )
        if not len(s):
            continue
        target = (gradient[n] if whole else torch.zeros_like(s)) if differentiate else None
        longest = max(torch.linalg.vector_norm(x, dim=1).max() for x in (s, t))
        loss += (_by_tiles if longest**2 <= SAFE_LOGIT else _by_rows)(s, t, target, tile)
        if differentiate and not whole:
            gradient[n, keep] = target
        del s, t, target
    return loss, gradient.mT if differentiate else None


def _spans(start: int, stop: int, size: int) -> Iterator[slice]:
    """Cuts start ... stop into nearly equal parts no longer than `size`."""
    parts = -(-(stop - start) // size)
    edges = [start + (stop - start) * k // parts for k in range(parts + 1)]
    return map(slice, edges[:-1], edges[1:])


def _by_tiles(s: Tensor, t: Tensor, gradient: Tensor | None, tile: tuple[int, int]) -> Tensor:
    """The loss on one image's tokens (L, C_s) and (L, C_t), adding the gradient to `gradient`; logits are small.

    Small enough, that is, that exp(S) needs no shift. It is then symmetric like S, and one pass over the upper triangle
    gives the sums Z of its rows. A second pass repeats the exponentials rather than store them.
    """
    length = len(s)
    tiles = [(i, j) for i in _spans(0, length, tile[0]) for j in _spans(i.start, length, tile[1])]
    memory = s.new_empty(3 * tile[0] * tile[1])
    z_s, z_t, moment = sums = s.new_zeros(3, length)

    def relations(i: slice, j: slice) -> Tensor:
        rows, columns = i.stop - i.start, j.stop - j.start
        block = memory[: 3 * rows * columns].view(3, rows, columns)
        torch.mm(s[i], s[j].mT, out=block[0])
        torch.mm(t[i], t[j].mT, out=block[1])
        return block

    for i, j in tiles:
        block = relations(i, j)
        torch.sub(block[1], block[0], out=block[2])
        block[:2].exp_()
        block[2].mul_(block[1])
        sums[:, i] += block.sum(2)
        below = max(i.stop, j.start)  # columns up to here meet their mirror image in this very tile
        sums[:, below : j.stop] += block[..., below - j.start :].sum(1)
    if gradient is not None:
        r_s, r_t = 1 / z_s, 1 / z_t
        for i, j in tiles:
            e_s, e_t, factor = relations(i, j)
            memory_view = None
    return (moment / z_t + (z_s / z_t).log()).sum()
