"""Pixel-wise distillation of the class posterior."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from bcd.config.ranges import Positive
from bcd.losses.masked import masked_mean, prepare

# What each repository makes of the mean over pixels. m: that mean, of the KL divergence or, for skd, of the cross
# entropy; t: temperature; c: classes; pixels, images: how many of the batch are valid, or have a valid pixel.
NORMALISATIONS: dict[str, Callable[[Tensor, float, int, Tensor, Tensor], Tensor]] = {
    "cirkd": lambda m, t, c, pixels, images: t**2 * m,
    "torchdistiller": lambda m, t, c, pixels, images: m / c,
    "mmrazor-mean": lambda m, t, c, pixels, images: t**2 * m / c,
    "mmrazor-batchmean": lambda m, t, c, pixels, images: t**2 * m * pixels / images.clamp(min=1),
    "skd": lambda m, t, c, pixels, images: m * images,
}


def kd(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    temperature: Positive = 1.0,
    normalisation: Literal["cirkd", "torchdistiller", "mmrazor-mean", "mmrazor-batchmean", "skd"] = "cirkd",
) -> Tensor:
    """T^2 * mean over valid pixels of KL(p_t || p_s), with p = softmax over classes of z / T.

    Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), applied at every pixel. The
    official codes have no mask. `normalisation` names the repository whose constants are used:

        cirkd              as above: github.com/winycg/CIRKD (losses/kd.py), mdistiller, DIST
        torchdistiller     the mean is over classes as well, and there is no T^2 (SemSeg-distill/utils/criterion.py)
        mmrazor-mean       the mean is over classes as well (mmrazor/models/losses/kl_divergence.py)
        mmrazor-batchmean  the sum over valid pixels, per image with a valid pixel (same file, its default)
        skd                the cross entropy -sum p_t log p_s instead of KL, whose value is not 0 at equality; no T^2;
                           summed over images, mean over their pixels (structure_knowledge_distillation,
                           utils/criterion.py, where T = 1)

    Args:
        student, teacher: logits (N, C, H, W).
        valid: bool (N, H, W).
        temperature: T > 0.
        normalisation: a key of NORMALISATIONS.

    Raises:
        UserError: the channel counts differ.
    """
    constants = NORMALISATIONS[normalisation]
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    if normalisation == "skd":
        per_class = -log_teacher.exp() * log_student
    else:
        per_class = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    mean = masked_mean(per_class.sum(1), valid)
    return constants(mean, temperature, student.shape[1], valid.sum(), valid.flatten(1).any(1).sum())
