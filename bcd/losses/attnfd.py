"""Attention-guided feature distillation: maps refined by channel and spatial attention, compared at unit length."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bcd.config.ranges import Count
from bcd.losses.masked import full_precision, prepare
from bcd.losses.mgd import image_sum_of_squares
from bcd.losses.reviewkd import ValidBatchNorm


class AttnFd(nn.Module):
    """1/N * || a_s / ||a_s|| - a_t / ||a_t|| ||^2, a = the refined maps, norms over the whole batch.

    The student's map is refined by a learned CBAM (Woo et al., arXiv 1807.06521) and brought to the teacher's channels
    by a 1x1 convolution with batch norm; the teacher's by the same gates without parameters (`refine`).
    Mansourian et al., "Attention-guided Feature Distillation for Semantic Segmentation" (arXiv 2403.05451), as in
    github.com/AmirMansurian/AttnFD at f090bbe, cbam.py and distiller.py. A teacher refines its map either by a CBAM
    trained within it or by cbam.py's teacher mode, which has no parameters (issue 6 there); our teachers are plain
    networks, so it is the latter. That code has no mask: here pools, batch norms and norms see valid pixels only, and N
    counts images that have any. A map of zeros has a unit map of zeros; there it is NaN.

    Args:
        student_shape, teacher_shape: observed (N, C, H, W); only the channels matter.
        reduction: the student's channels over the width of the channel gate.
    """

    def __init__(self, student_shape: Sequence[int], teacher_shape: Sequence[int], *, reduction: Count = 16):
        super().__init__()
        student_channels, channels = student_shape[1], teacher_shape[1]
        hidden = max(1, student_channels // reduction)
        self.channel_gate = nn.Sequential(
            nn.Linear(student_channels, hidden), nn.ReLU(), nn.Linear(hidden, student_channels)
        )
        self.spatial_gate = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.spatial_norm = ValidBatchNorm(1)
        self.connector = nn.Conv2d(student_channels, channels, 1, bias=False)
        self.connector_norm = ValidBatchNorm(channels)
        nn.init.kaiming_normal_(self.spatial_gate.weight)
        nn.init.kaiming_normal_(self.connector.weight, mode="fan_out")

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, valid: Tensor | None = None) -> Tensor:
        """student (N, C_s, H, W), teacher (N, C_t, H, W), valid bool (N, H, W)."""
        student, teacher, valid = prepare(student, teacher, valid)
        average, peak = pool(student, valid)
        refined = student * (self.channel_gate(average) + self.channel_gate(peak)).sigmoid()[:, :, None, None]
        compressed = torch.stack([refined.max(1).values, refined.mean(1)], dim=1)
        refined = refined * self.spatial_norm(self.spatial_gate(compressed), valid).sigmoid()
        generated = self.connector_norm(self.connector(refined), valid)
        return image_sum_of_squares(unit(generated) - unit(refine(teacher, valid)), valid)


def refine(features: Tensor, valid: Tensor) -> Tensor:
    """CBAM without parameters: f times sigmoid(mean + max) over pixels, then times sigmoid(max + mean) over channels.

    features (N, C, H, W), zero where `valid` (N, H, W) is not; so is the result.
    """
    average, peak = pool(features, valid)
    features = features * (average + peak).sigmoid()[:, :, None, None]
    return features * (features.max(1).values + features.mean(1)).sigmoid().unsqueeze(1)


def pool(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum over the valid pixels of each image, (N, C); 0 for an image without."""
    count = valid.sum((1, 2)).unsqueeze(1)
    average = features.sum((2, 3)) / count.clamp(min=1)
    lowest = features.masked_fill(~valid.unsqueeze(1), torch.finfo(features.dtype).min)
    return average, lowest.flatten(2).max(2).values.masked_fill(count == 0, 0)


def unit(features: Tensor) -> Tensor:
    """A tensor over its Euclidean norm; zeros stay zeros."""
    # Over the largest entry first, or squares of large entries would overflow; the norm is at least 1 after it.
    largest = features.detach().abs().amax()
    features = features / largest.masked_fill(largest == 0, 1)
    return features / torch.linalg.vector_norm(features).clamp(min=1)
