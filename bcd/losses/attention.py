"""Attention transfer: where in the image the features are strong, all channels together."""

import torch.nn.functional as F
from torch import Tensor

from bcd.config.ranges import AtLeastOne
from bcd.errors import UserError
from bcd.losses.masked import masked_mean, prepare
from bcd.losses.scale import tame


def at(student: Tensor, teacher: Tensor, *, valid: Tensor | None = None, p: AtLeastOne = 2.0) -> Tensor:
    """Mean over valid pixels of (Q_s - Q_t)^2, Q = the image's energy map as a unit vector over its valid pixels.

    Zagoruyko & Komodakis, "Paying More Attention to Attention" (arXiv 1612.03928), as computed by the authors
    (github.com/szagoruyko/attention-transfer, utils.py), CIRKD (losses/at.py) and RepDistiller (distiller_zoo/AT.py).
    No official code has a mask. RepDistiller pools maps of different height to a square, even if they are not; here the
    maps arrive at the same size.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W).
        valid: bool (N, H, W).
        p: the power of `energy`, >= 1.

    Raises:
        UserError: p < 1.
    """
    student, teacher, valid = prepare(student, teacher, valid)
    student, teacher = (F.normalize(energy(x, p).flatten(1), dim=1) for x in (student, teacher))
    return masked_mean((student - teacher).square(), valid.flatten(1))


def energy(features: Tensor, p: float) -> Tensor:
    """Mean over channels of |f|^p, up to a factor of each image that keeps it in [0, 1] where a value exceeds 1.

    Args:
        features: float (N, C, H, W), 0 at invalid pixels.
        p: >= 1.

    Returns:
        float (N, H, W), >= 0.

    Raises:
        UserError: p < 1, where the slope at 0 is infinite.
    """
    if p < 1:
        raise UserError(f"the power p of an attention map must be at least 1, not {p}")
    return tame(features, (1, 2, 3)).abs().pow(p).mean(1)
