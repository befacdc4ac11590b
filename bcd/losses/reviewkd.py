"""Knowledge review: the student's stages, fused from coarse to fine, against the teacher's at several scales."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd.config.ranges import Count
from bcd.losses.masked import full_precision, masked_mean, prepare

# Side lengths of the pooled maps that the context loss compares beside the full ones.
POOLED = (4, 2, 1)


class ReviewKd(nn.Module):
    """Hierarchical context loss between the fused student's and the teacher's maps, summed over the taps.

    Chen et al., "Distilling Knowledge via Knowledge Review" (arXiv 2104.09044), as in
    github.com/dvlab-research/ReviewKD at cede6ea, Detection/model/kd_trans.py; that code has no mask. Here every mean
    and the statistics of the batch norms are over valid pixels.

    Args:
        student_shapes, teacher_shapes: observed (N, C, H, W) per tap, fine to coarse; only the channels matter.
        mid_channels: width of the fused features (256 for detectors; 512 and 256 for ImageNet classifiers).
    """

    def __init__(
        self,
        student_shapes: Sequence[Sequence[int]],
        teacher_shapes: Sequence[Sequence[int]],
        *,
        mid_channels: Count = 256,
    ):
        super().__init__()
        channels = [(s[1], t[1]) for s, t in zip(student_shapes, teacher_shapes, strict=True)]
        self.fusions = nn.ModuleList(
            Fusion(s, mid_channels, t, coarsest=i == len(channels) - 1) for i, (s, t) in enumerate(channels)
        )

    @full_precision
    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], *, valid: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """Lists with one map (N, C, H, W) and one mask bool (N, H, W) per tap, fine to coarse."""
        valid = [None] * len(student) if valid is None else valid
        student, teacher, valid = zip(*map(prepare, student, teacher, valid), strict=True)
        fused: Tensor | None = None
        generated: list[Tensor] = []
        for fusion, features, mask in reversed(list(zip(self.fusions, student, valid, strict=True))):
            output, fused = fusion(features, fused, mask)
            generated.insert(0, output)
        return hierarchical_context_loss(generated, teacher, valid)


class Fusion(nn.Module):
    """Attention-based fusion of one stage with the coarser ones, and the map generated from it.

    coarsest: there is nothing to fuse with.
    """

    def __init__(self, student_channels: int, mid_channels: int, teacher_channels: int, *, coarsest: bool):
        super().__init__()
        self.reduce = nn.Conv2d(student_channels, mid_channels, 1, bias=False)
        self.reduce_norm = ValidBatchNorm(mid_channels)
        self.attention = None if coarsest else nn.Conv2d(2 * mid_channels, 2, 1)
        self.output = nn.Conv2d(mid_channels, teacher_channels, 3, padding=1, bias=False)
        self.output_norm = ValidBatchNorm(teacher_channels)
        for convolution in (self.reduce, self.output):
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(self, features: Tensor, coarser: Tensor | None, valid: Tensor) -> tuple[Tensor, Tensor]:
        """features (N, C_s, H, W) and valid (N, H, W); coarser (N, mid, h, w), what the next stage returned second.

        Returns the generated (N, C_t, H, W) and the fused (N, mid, H, W); both are zero at invalid pixels.
        """
        fused = self.reduce_norm(self.reduce(features), valid)
        if self.attention is not None and coarser is not None:
            coarser = F.interpolate(coarser, fused.shape[2:], mode="nearest") * valid.unsqueeze(1)
            own, other = self.attention(torch.cat([fused, coarser], dim=1)).sigmoid().split(1, dim=1)
            fused = fused * own + coarser * other
        return self.output_norm(self.output(fused), valid), fused


class ValidBatchNorm(nn.Module):
    """Batch normalisation in training mode with the statistics of the valid pixels; 0 at all others.

    Without running statistics: it is for modules that are thrown away with the training.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """features (N, C, H, W), finite everywhere; valid bool (N, H, W)."""
        mask = valid.unsqueeze(1).to(features.dtype)
        count = mask.sum().clamp(min=1)
        mean = (features * mask).sum((0, 2, 3), keepdim=True) / count
        centred = (features - mean) * mask
        variance = centred.square().sum((0, 2, 3), keepdim=True) / count
        scale = self.weight.view(1, -1, 1, 1) * (variance + self.eps).rsqrt()
        return centred * scale + self.bias.view(1, -1, 1, 1) * mask


def hierarchical_context_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], valid: Sequence[Tensor] | None = None
) -> Tensor:
    """Sum over the taps of a weighted mean of the squared errors of the maps and of their 4x4, 2x2 and 1x1 averages.

    The map has weight 1, each average half the weight of the one before; averages no smaller than the map's height are
    left out (the width is not looked at, as in the official code). Averages are over valid pixels; of the cells, those
    that have any are compared.

    Args:
        student, teacher: maps (N, C, H, W), one per tap, finite everywhere.
        valid: bool (N, H, W) per tap; None = all pixels.
    """
    if valid is None:
        valid = [torch.ones_like(s[:, 0], dtype=torch.bool) for s in student]
    first, *others = map(_context_loss, student, teacher, valid)
    return sum(others, first)


def _context_loss(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    difference = (student - teacher) * valid.unsqueeze(1)
    loss, weight, total = _mean_square(difference, valid), 1.0, 1.0
    for side in POOLED:
        if side < student.shape[2]:
            weight /= 2
            total += weight
            share = F.adaptive_avg_pool2d(valid.unsqueeze(1).to(difference.dtype), side)
            pooled = F.adaptive_avg_pool2d(difference, side) / share.masked_fill(share == 0, 1)
            loss = loss + weight * _mean_square(pooled, share[:, 0] > 0)
    return loss / total


def _mean_square(values: Tensor, valid: Tensor) -> Tensor:
    return masked_mean(values.square(), valid.unsqueeze(1).expand_as(values))
