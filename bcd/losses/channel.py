"""Channel-wise distillation: where in the image each channel is active."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.config.ranges import Positive
from bcd.losses.masked import masked_mean, prepare, spatial_kl


def cwd(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    temperature: Positive = 1.0,
    official: bool = False,
) -> Tensor:
    """T^2 / (N C) * sum over images and channels of KL(phi_t || phi_s), phi = softmax over pixels of f / T.

    Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction" (arXiv 2011.13256), in the numerically safe
    form of mmrazor (mmrazor/models/losses/cwd.py); that code has no mask. Here N counts images with a valid pixel.

    Args:
        student, teacher: logits or features (N, C, H, W), compared channel by channel.
        valid: bool (N, H, W).
        temperature: T > 0.
        official: take the logarithm of the student's softmax, as CIRKD (losses/cwd.py) and TorchDistiller do: NaN
            once a pixel's probability underflows.

    Raises:
        UserError: the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    divergence = (_unsafe_spatial_kl if official else spatial_kl)(student / temperature, teacher / temperature, valid)
    counted = valid.flatten(1).any(1, keepdim=True).expand_as(divergence)
    return temperature**2 * masked_mean(divergence, counted)


def _unsafe_spatial_kl(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """As `spatial_kl`, but with the logarithm of a softmax."""
    hole = ~valid.flatten(1).unsqueeze(1)
    floor = torch.finfo(student.dtype).min / 2
    student, teacher = (F.softmax(x.flatten(2).masked_fill(hole, floor), dim=-1) for x in (student, teacher))
    # Probability 1 keeps the logarithm of what the mask, not the underflow, made 0 out of value and gradient.
    return F.kl_div(student.masked_fill(hole, 1).log(), teacher.masked_fill(hole, 0), reduction="none").sum(-1)
