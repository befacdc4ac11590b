"""Pearson distillation: features up to scale and offset of each channel."""

import torch
from torch import Tensor

from bcd.losses.masked import masked_mean, prepare

STD_EPS = 1e-6


def pkd(student: Tensor, teacher: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Half the mean of (z_s - z_t)^2, z = channels standardised over the valid pixels of the whole batch.

    This is (n - 1) / n * (1 - r) for n valid pixels and Pearson correlation r of a channel, averaged over channels. Cao
    et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient" (arXiv
    2207.02039), as in mmrazor (mmrazor/models/losses/pkd_loss.py). That code has no mask, sums over levels and is NaN
    for a single pixel, which gives 0 here. A channel that is constant over the batch gets a gradient of order 1e6.

    Args:
        student, teacher: features (N, C, H, W), compared channel by channel.
        valid: bool (N, H, W).

    Raises:
        UserError: the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    counted = valid.flatten()
    student, teacher = (_standardise(x.transpose(0, 1).flatten(1), counted) for x in (student, teacher))
    return 0.5 * masked_mean((student - teacher).square().mean(0), counted)


def _standardise(channels: Tensor, counted: Tensor) -> Tensor:
    """(C, L) with mean 0 and unbiased standard deviation 1 over `counted`, bool (L,); 0 elsewhere as before."""
    n = counted.sum().clamp(min=1).to(channels.dtype)
    centred = (channels - channels.sum(1, keepdim=True) / n) * counted
    deviation = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / (n - 1).clamp(min=1).sqrt()
    return centred / (deviation + STD_EPS)
