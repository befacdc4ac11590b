"""Pixel-wise distillation of the class posterior."""

import torch.nn.functional as F
from torch import Tensor

from bcd.losses.masked import masked_mean, prepare


def kd(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    label: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """T^2 * mean over valid pixels of KL(p_t || p_s), with p = softmax over classes of z / T.

    Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), applied at every pixel in the
    normalisation of CIRKD (github.com/winycg/CIRKD, losses/kd.py); that code has no mask.

    Args:
        student, teacher: logits (N, C, H, W).
        valid: bool (N, H, W).
        label: not used.
        temperature: T > 0.

    Raises:
        UserError: the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
    return temperature**2 * masked_mean(divergence, valid)
