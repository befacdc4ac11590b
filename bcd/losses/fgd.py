"""Focal and global distillation: features weighted by boxes and attention, the attention itself, and their relation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bcd.config.ranges import NonNegative, Positive
from bcd.losses.masked import full_precision, prepare
from bcd.losses.mgd import image_sum_of_squares


class Fgd(nn.Module):
    """foreground * L_fg + background * L_bg + attention * L_at + relation * L_rel, each a sum divided by N images.

    With S_t (pixels) and C_t (channels) the teacher's attention, D = S_t C_t (s - t)^2, and R(f) = f + a global context
    of f by learned weights (one set for the student, one for the teacher):

        L_fg  = 1/N sum of D * max over the boxes around the pixel of 1 / area of the box
        L_bg  = 1/N sum of D / background pixels of the image, over pixels in no box
        L_at  = 1/N sum over channels of |C_s - C_t| + 1/N sum over pixels of |S_s - S_t|
        L_rel = 1/N sum of (R_s(s) - R_t(t))^2

    Yang et al., "Focal and Global Knowledge Distillation for Detectors" (arXiv 2111.11837), as in github.com/yzd-v/FGD
    at c03a6cf, mmdet/distillation/losses/fgd.py; the default weights are those of its RetinaNet configurations. That
    code has no mask: here every softmax, mean, sum and count is over valid pixels, and N counts images that have any.
    A student of other channels than the teacher's first passes a learned 1x1 convolution.

    Args:
        student_shape, teacher_shape: observed (N, C, H, W); only the channels matter.
        temperature: of both attentions, > 0.
        foreground, background, attention, relation: weights of the four parts, >= 0.
    """

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        temperature: Positive = 0.5,
        foreground: NonNegative = 1e-3,
        background: NonNegative = 5e-4,
        attention: NonNegative = 5e-4,
        relation: NonNegative = 5e-6,
    ):
        super().__init__()
        self.temperature = temperature
        self.foreground, self.background, self.attention, self.relation = foreground, background, attention, relation
        channels = teacher_shape[1]
        self.align = nn.Conv2d(student_shape[1], channels, 1) if student_shape[1] != channels else nn.Identity()
        self.student_context, self.teacher_context = GlobalContext(channels), GlobalContext(channels)

    @full_precision
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        valid: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """student (N, C_s, H, W), teacher (N, C_t, H, W), valid bool (N, H, W).

        boxes: N float tensors (k, 4), x1, y1, x2, y2 as fractions of the image; None or k = 0: all is background.
        """
        student, teacher, valid = prepare(student, teacher, valid)
        student = self.align(student).masked_fill(~valid.unsqueeze(1), 0)
        student_pixels, student_channels = attention_maps(student, valid, self.temperature)
        pixels, channels = attention_maps(teacher, valid, self.temperature)
        images = valid.flatten(1).any(1).sum().clamp(min=1)

        inside = box_weights(boxes, valid).to(student)
        outside = (valid & (inside == 0)).to(student)
        outside = outside / outside.sum((1, 2), keepdim=True).clamp(min=1)
        focus = self.foreground * inside + self.background * outside
        difference = (student - teacher).square() * channels[:, :, None, None]
        focal = (difference.sum(1) * pixels * focus).sum()
        gaps = (student_pixels - pixels).abs().sum() + (student_channels - channels).abs().sum()
        related = self.student_context(student, valid) - self.teacher_context(teacher, valid)
        return (focal + self.attention * gaps) / images + self.relation * image_sum_of_squares(related, valid)


class GlobalContext(nn.Module):
    """f + W2 relu(layer norm(W1 (sum over pixels of f * softmax over pixels of w f))): GCNet's block.

    Starts as the identity, since W2 does.
    """

    def __init__(self, channels: int):
        super().__init__()
        half = max(1, channels // 2)
        self.weight = nn.Conv2d(channels, 1, 1)
        narrow, wide = nn.Conv2d(channels, half, 1), nn.Conv2d(half, channels, 1)
        self.transform = nn.Sequential(narrow, nn.LayerNorm([half, 1, 1]), nn.ReLU(), wide)
        nn.init.kaiming_normal_(self.weight.weight, nonlinearity="relu")
        for zero in (self.weight.bias, wide.weight, wide.bias):
            assert zero is not None  # for torch's types a convolution may have no bias
            nn.init.zeros_(zero)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """features (N, C, H, W), zero where `valid` (N, H, W) is not."""
        weight = _softmax_over_valid(self.weight(features).squeeze(1), valid)
        pooled = (features * weight.unsqueeze(1)).sum((2, 3), keepdim=True)
        return features + self.transform(pooled)


def attention_maps(features: Tensor, valid: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Where and in which channels a map is strong: softmax of mean |f| / T, scaled to a mean of 1.

    Args:
        features: (N, C, H, W), zero where `valid` is not.
        valid: bool (N, H, W).

    Returns:
        over pixels (N, H, W), with mean 1 over the valid and 0 elsewhere; over channels (N, C), with mean 1.
    """
    strength = features.abs()
    count = valid.sum((1, 2))
    over_pixels = _softmax_over_valid(strength.mean(1) / temperature, valid) * count[:, None, None]
    mean = strength.sum((2, 3)) / count.clamp(min=1)[:, None]
    return over_pixels, (mean / temperature).softmax(1) * features.shape[1]


def box_weights(boxes: Sequence[Tensor] | None, valid: Tensor) -> Tensor:
    """1 / area of the smallest box around each pixel, (N, H, W); 0 at pixels in no box and at invalid ones.

    A box covers the cells from the floor of its upper left to the ceiling of its lower right corner, both inclusive;
    its area counts the cells of that range even beyond the border. So does the official code.
    """
    n, h, w = valid.shape
    if boxes is None:
        return torch.zeros(n, h, w, device=valid.device)
    return torch.stack([_box_weights(each.to(valid.device), h, w) for each in boxes]) * valid


def _box_weights(boxes: Tensor, h: int, w: int) -> Tensor:
    scaled = boxes * boxes.new_tensor([w, h, w, h])
    left, top = scaled[:, :2].floor().T
    right, bottom = scaled[:, 2:].ceil().T
    rows, columns = torch.arange(h, device=boxes.device), torch.arange(w, device=boxes.device)
    tall = (rows >= top[:, None]) & (rows <= bottom[:, None])
    wide = (columns >= left[:, None]) & (columns <= right[:, None])
    weight = 1 / (bottom + 1 - top) / (right + 1 - left)
    covered = (tall[:, :, None] & wide[:, None, :]) * weight[:, None, None]
    return torch.cat([covered, covered.new_zeros(1, h, w)]).amax(0)


def _softmax_over_valid(logits: Tensor, valid: Tensor) -> Tensor:
    """Softmax over the valid pixels of each image, (N, H, W); 0 at all others, also where an image has none."""
    floor = torch.finfo(logits.dtype).min / 2
    return logits.masked_fill(~valid, floor).flatten(1).softmax(1).view_as(logits) * valid
