"""Variational information distillation: how likely the teacher's features are given the student's."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bcd.config.ranges import Whole
from bcd.losses.masked import full_precision, masked_mean, prepare

# Keeps the variance away from zero, where the likelihood has no bound.
VARIANCE_FLOOR = 1e-5


class Vid(nn.Module):
    """Mean over valid pixels and channels c of ((mu_c - t_c)^2 / v_c + log v_c) / 2: a Gaussian's -log q(t | s).

    mu is a regressor of the student's map (1x1 convolutions without bias, ReLU between), v_c > 0 a learned variance of
    teacher channel c. Not bounded by 0. Ahn et al., "Variational Information Distillation for Knowledge Transfer"
    (arXiv 1904.05835), as in github.com/HobbitLong/RepDistiller at b84f547, distiller_zoo/VID.py, which has no mask.

    Args:
        student_shape, teacher_shape: observed (N, C, H, W); only the channels matter.
        mid_channels: width of the regressor; 0 = the teacher's channels, as train_student.py there builds it.
        initial_variance: v at the start, > 1e-5.
    """

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        mid_channels: Whole = 0,
        initial_variance: Annotated[float, Field(gt=1e-5)] = 5.0,
    ):
        super().__init__()
        channels = teacher_shape[1]
        mid = mid_channels or channels
        self.regressor = nn.Sequential(
            nn.Conv2d(student_shape[1], mid, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(mid, mid, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(mid, channels, 1, bias=False),
        )
        self.log_scale = nn.Parameter(torch.full((channels,), math.log(math.expm1(initial_variance - VARIANCE_FLOOR))))

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, valid: Tensor | None = None) -> Tensor:
        """student (N, C_s, H, W), teacher (N, C_t, H, W), valid bool (N, H, W)."""
        student, teacher, valid = prepare(student, teacher, valid)
        variance = (F.softplus(self.log_scale) + VARIANCE_FLOOR).view(1, -1, 1, 1)
        surprise = ((self.regressor(student) - teacher).square() / variance + variance.log()) / 2
        return masked_mean(surprise, valid.unsqueeze(1).expand_as(surprise))
