"""Context distillation: the relation of every pixel to every other, compared row by row."""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bcd.config.ranges import Count, Positive
from bcd.losses.context_tiled import tiled_self_relation_kl
from bcd.losses.masked import UNIT_EPS, full_precision, masked_avg_pool, prepare


@full_precision
def context(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    temperature: Positive = 0.1,
    normalise: bool = True,
    pool: Count = 1,
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
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        valid: Tensor,
        temperature: float,
        normalise: bool,
        product_dtype: torch.dtype,
    ) -> Tensor:
        self_relation_kl = _fused_form(student, product_dtype) or tiled_self_relation_kl
        loss = student.new_zeros(())
        gradient = student.new_empty(student.shape) if ctx.needs_input_grad[0] else None
        masks = valid.flatten(1)
        counts = masks.sum(1).tolist()
        weight = 1 / max(sum(counts), 1)
        for n, mask in enumerate(masks):
            # In one layout, on which the rounding of sums depends.
            s, t = (x[n].flatten(1).contiguous() for x in (student, teacher))
            (s_scale, unit), (t_scale, _) = (_scale(x, temperature, normalise) for x in (s, t))
            whole = counts[n] == len(mask)
            keep = slice(None) if whole else mask.nonzero().squeeze(1)
            value, slope = self_relation_kl(
                s[:, keep], t[:, keep], s_scale[keep], t_scale[keep], differentiate=gradient is not None
            )
            loss += value
            if gradient is not None and slope is not None:
                image = gradient[n].flatten(1)
                if not whole:
                    image.zero_()
                image[:, keep] = slope
                del slope
                image *= s_scale * weight
                if unit is not None:  # of a unit vector, the part of the gradient along itself goes nowhere
                    along = (image * s).sum(0).mul_(s_scale.square()).masked_fill_(~unit, 0)
                    image.addcmul_(s, along, value=-temperature)
        ctx.save_for_backward(gradient)
        return loss * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None, None, None


def _fused_form(features: Tensor, product_dtype: torch.dtype) -> Callable[..., tuple[Tensor, Tensor | None]] | None:
    """The Triton form of `tiled_self_relation_kl`, or None where it cannot run."""
    if not features.is_cuda or features.dtype != torch.float32 or importlib.util.find_spec("triton") is None:
        return None
    if torch.cuda.get_device_capability(features.device) < (8, 0):  # no products of bfloat16 or TF32
        return None
    from bcd.losses.context_triton import fused_self_relation_kl

    return partial(fused_self_relation_kl, product_dtype=product_dtype)


def _scale(features: Tensor, temperature: float, normalise: bool) -> tuple[Tensor, Tensor | None]:
    """Of each pixel of (C, L): what scales it so that products are logits, and whether that follows from its length."""
    if not normalise:
        return features.new_full(features.shape[1:], temperature**-0.5), None
    length = features.square().sum(0).sqrt_()  # not vector_norm, which over channels is slow on a CPU
    return 1 / (length.clamp(min=UNIT_EPS) * temperature**0.5), length > UNIT_EPS
