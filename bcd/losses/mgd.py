"""Masked generative distillation: the student's map, with holes, has to generate the teacher's whole map."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd.config.ranges import Fraction
from bcd.errors import UserError
from bcd.losses.masked import full_precision, prepare

MASKS = ("pixel", "channel")


class Mgd(nn.Module):
    """1/N * sum over valid pixels and channels of (g - t)^2, g generated from the student's randomly masked map.

    Yang et al., "Masked Generative Distillation" (arXiv 2205.01529), as in github.com/yzd-v/MGD at 2c9da0b,
    seg/mmseg/distillation/losses/mgd.py (`pixel`) and cls/mmcls/distillation/losses/mgd.py (`channel`). The official
    alpha is the term's weight; as the sum is divided by the images only, it depends on resolution and channels. That
    code has no mask of invalid pixels; here N counts images with a valid pixel.

    Args:
        student_shape, teacher_shape: observed (N, C, H, W); only the channels matter.
        mask_ratio: fraction of pixels (or channels) hidden from the generator, in [0, 1].
        mask: `pixel` hides a pixel in all channels, `channel` a channel in all pixels.

    Raises:
        UserError: an unknown `mask`, or a `mask_ratio` that is no fraction.
    """

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        mask_ratio: Fraction = 0.75,
        mask: Literal["pixel", "channel"] = "pixel",
    ):
        super().__init__()
        self.generate = MaskedGenerator(student_shape[1], teacher_shape[1], mask_ratio, mask)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, valid: Tensor | None = None) -> Tensor:
        """Draws a new mask per call. student (N, C_s, H, W), teacher (N, C_t, H, W), valid bool (N, H, W)."""
        student, teacher, valid = prepare(student, teacher, valid)
        return image_sum_of_squares(self.generate(student, valid) - teacher, valid)


class MaskedGenerator(nn.Module):
    """From a student's map to a generated teacher's map: 1x1 convolution if channels differ, holes, 3x3, ReLU, 3x3.

    Arguments and errors as for `Mgd`.
    """

    def __init__(self, student_channels: int, channels: int, mask_ratio: float, mask: str = "pixel"):
        super().__init__()
        if mask not in MASKS:
            raise UserError(f"mask must be one of {', '.join(MASKS)}, not {mask!r}")
        if not 0 <= mask_ratio <= 1:
            raise UserError(f"mask_ratio is the fraction that is masked, 0 to 1, not {mask_ratio}")
        self.mask_ratio, self.mask = mask_ratio, mask
        self.align = nn.Conv2d(student_channels, channels, 1) if student_channels != channels else nn.Identity()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, student: Tensor, valid: Tensor) -> Tensor:
        """student (N, C_s, H, W), finite everywhere; valid bool (N, H, W). Returns (N, C, H, W)."""
        # Biases fill invalid pixels; blanked before each convolution they act like the padding of the map's border.
        hole = ~valid.unsqueeze(1)
        features = self.align(student).masked_fill(hole, 0) * self._kept(student)
        hidden = F.relu(self.first(features)).masked_fill(hole, 0)
        return self.second(hidden)

    def _kept(self, student: Tensor) -> Tensor:
        """Random bool mask of what the generator sees, (N, 1, H, W) or (N, C, 1, 1)."""
        n, _, h, w = student.shape
        if self.mask == "pixel":
            return torch.rand(n, 1, h, w, device=student.device) <= 1 - self.mask_ratio
        return torch.rand(n, self.first.in_channels, 1, 1, device=student.device) >= self.mask_ratio


def image_sum_of_squares(difference: Tensor, valid: Tensor) -> Tensor:
    """Sum of the squares of (N, C, H, W) at the valid pixels (N, H, W), over the number of images that have any."""
    images = valid.flatten(1).any(1).sum().clamp(min=1)
    return difference.masked_fill(~valid.unsqueeze(1), 0).square().sum() / images
