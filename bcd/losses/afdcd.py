"""Augmentation-free dense contrastive distillation: a generated map has to match the teacher's, piece by piece."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd.config.ranges import Count, Fraction, NonNegative, Positive, Several
from bcd.errors import UserError
from bcd.losses.masked import full_precision, masked_max_pool, masked_mean, prepare
from bcd.losses.mgd import MaskedGenerator, image_sum_of_squares


class AfDcd(nn.Module):
    """feature * (the loss of `Mgd`) + contrast * (`omni_contrast` of the generated and the teacher's map).

    Fan et al., "Augmentation-Free Dense Contrastive Knowledge Distillation for Efficient Semantic Segmentation"
    (NeurIPS 2023), as in github.com/OSVAI/Af-DCD at 5b086a7, losses/ocmgd.py, with the default weights of its
    train_ocmgd.py. Both parts share the generator and its mask. That code has no mask of invalid pixels and wants maps
    that divide into patches; here the rest makes smaller patches.

    Args:
        student_shape, teacher_shape: observed (N, C, H, W); only the channels matter.
        feature, contrast: weights of the two parts, >= 0.
        mask_ratio: fraction of the student's pixels hidden from the generator, in [0, 1].
        temperature: of the contrast, > 0.
        groups: pieces of the teacher's channels, at least 2 and a divisor of their number.
        pool: side of the max-pooling before the contrast; 1 = none.
        patch: side of the square of pooled pixels within which pieces are contrasted.

    Raises:
        UserError: `groups` does not fit the teacher's channels, or `mask_ratio` is no fraction.
    """

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        feature: NonNegative = 4e-5,
        contrast: NonNegative = 1e-3,
        mask_ratio: Fraction = 0.75,
        temperature: Positive = 0.07,
        groups: Several = 16,
        pool: Count = 4,
        patch: Count = 4,
    ):
        super().__init__()
        if groups < 2 or teacher_shape[1] % groups:
            raise UserError(f"afdcd: groups must be 2 or more and divide the teacher's {teacher_shape[1]} channels")
        self.feature, self.contrast, self.temperature = feature, contrast, temperature
        self.groups, self.pool, self.patch = groups, pool, patch
        self.generate = MaskedGenerator(student_shape[1], teacher_shape[1], mask_ratio)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, valid: Tensor | None = None) -> Tensor:
        """Draws a new mask per call. student (N, C_s, H, W), teacher (N, C_t, H, W), valid bool (N, H, W)."""
        student, teacher, valid = prepare(student, teacher, valid)
        generated = self.generate(student, valid)
        mimicry = image_sum_of_squares(generated - teacher, valid)
        (generated, cells), (teacher, _) = (masked_max_pool(x, valid, self.pool) for x in (generated, teacher))
        contrast = omni_contrast(generated, teacher, cells, self.temperature, self.groups, self.patch)
        return self.feature * mimicry + self.contrast * contrast


def omni_contrast(
    student: Tensor, teacher: Tensor, valid: Tensor, temperature: float, groups: int, patch: int
) -> Tensor:
    """Sum over channel groups of the mean over valid pixels of a contrast between pieces of the same patch.

    A piece is one group of channels at one pixel. With d the L1 distance of teacher's pieces to the student's piece
    over the temperature, its loss is d(same pixel, same group) + log sum exp(-d) over that piece and those of all other
    groups at any pixel of the patch. The same group at other pixels is neither positive nor negative.

    Args:
        student, teacher: (N, C, H, W), `groups` dividing C, zero where `valid` (N, H, W) is not.
    """
    students, teachers = (_pieces(x, groups, patch) for x in (student, teacher))
    counted = _pieces(valid.unsqueeze(1).repeat(1, groups, 1, 1), groups, patch).squeeze(-1)
    logits = -torch.cdist(students, teachers, p=1) / temperature
    group = torch.arange(groups, device=valid.device).repeat(patch * patch)
    itself = torch.eye(len(group), dtype=torch.bool, device=valid.device)
    compared = itself | ((group[:, None] != group) & counted.unsqueeze(1))
    total = logits.masked_fill(~compared, torch.finfo(logits.dtype).min / 2).logsumexp(-1)
    return groups * masked_mean(total - logits.diagonal(dim1=1, dim2=2), counted)


def _pieces(x: Tensor, groups: int, patch: int) -> Tensor:
    """(N, groups * k, H, W) -> (N * patches, patch^2 * groups, k), row by row; zeros (False) fill up the last patch."""
    n, c, h, w = x.shape
    x = F.pad(x, (0, -w % patch, 0, -h % patch))
    x = x.view(n, groups, c // groups, x.shape[2] // patch, patch, x.shape[3] // patch, patch)
    return x.permute(0, 3, 5, 4, 6, 1, 2).reshape(-1, patch * patch * groups, c // groups)
