"""Similarity-preserving distillation: which images of the batch activate the network alike."""

import torch.nn.functional as F
from torch import Tensor

from bcd.losses.masked import UNIT_EPS, full_precision, prepare
from bcd.losses.scale import tame


@full_precision
def spkd(student: Tensor, teacher: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """1 / B^2 * sum over image pairs of (G_s - G_t)^2, G = F F^T with rows of unit length, F = (B, C H W).

    Tung & Mori, "Similarity-Preserving Knowledge Distillation" (arXiv 1907.09682), as in RepDistiller
    (distiller_zoo/SP.py) and mdistiller, which have no mask. Here invalid pixels enter no product and B counts images
    with a valid pixel. A batch of one image gives 0.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W).
        valid: bool (N, H, W).
    """
    student, teacher, valid = prepare(student, teacher, valid)
    images = valid.flatten(1).any(1).sum().clamp(min=1)
    return (_similarity(student) - _similarity(teacher)).square().sum() / images.square()


def _similarity(features: Tensor) -> Tensor:
    # One factor for the whole batch: a factor per image would reweight the columns of each row.
    rows = tame(features.flatten(1), (0, 1))
    return F.normalize(rows @ rows.mT, dim=1, eps=UNIT_EPS**2)
