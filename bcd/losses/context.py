"""Context distillation: the relation of every pixel to every other, compared row by row."""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bcd.losses.context_tiled import tiled_self_relation_kl
from bcd.losses.masked import UNIT_EPS, full_precision, masked_avg_pool, prepare


@full_precision
def context(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    temperature: float = 0.1,
    normalise: bool = True,
    pool: int = 1,
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
        pool: side of the cells whose means (over valid pixels) are related in the place of pixels; the cost falls with
            its fourth power.
    """
    both_bfloat16 = student.dtype == teacher.dtype == torch.bfloat16
    product_dtype = torch.bfloat16 if both_bfloat16 else torch.float32
    student, teacher, valid = prepare(student, teacher, valid)
    if pool > 1:
        (student, cells), (teacher, _) = (masked_avg_pool(x, valid, pool) for x in (student, teacher))
        valid = cells
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
        gradient = student.new_empty(student.shape) if ctx.needs_input_grad[0] else None
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
                value, slope = tiled_self_relation_kl(s, t, gradient is not None)
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
    """The Triton form of `tiled_self_relation_kl`, or None where it cannot run."""
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
