"""Relational distillation: the geometry of the batch in feature space."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.config.ranges import NonNegative
from bcd.losses.embedding import embed
from bcd.losses.masked import full_precision, prepare

# Two embeddings nearer than this are taken for one: their direction would be noise and its gradient would explode.
SAME_EPS = 1e-6


@full_precision
def rkd(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    distance_weight: NonNegative = 25.0,
    angle_weight: NonNegative = 50.0,
) -> Tensor:
    """Smooth-L1 differences of the pairwise distances and of the cosines of all triplets of image embeddings.

    distance_weight * mean_ij h(d_ij^s - d_ij^t) + angle_weight * mean_ijk h(a_ijk^s - a_ijk^t), with h = Huber of width
    1, d = distance over the mean distance between different images, a_ijk = cosine of the angle at image i between
    images j and k. Means run over all indices, equal ones too.

    Park et al., "Relational Knowledge Distillation" (arXiv 1904.05068), as in RepDistiller (distiller_zoo/RKD.py), for
    embeddings. An embedding here is the average of the map over the image's valid pixels; images without any are left
    out. Less than three images have no relation but scale, which gives 0 (RepDistiller: NaN for one image).

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W); a 1x1 map is its own embedding.
        valid: bool (N, H, W).
        distance_weight, angle_weight: >= 0.
    """
    student, teacher, valid = prepare(student, teacher, valid)
    student, teacher = (_offsets(embed(x, valid)) for x in (student, teacher))
    distance = _mean_huber(_distances(student), _distances(teacher))
    angle = _mean_huber(_cosines(student), _cosines(teacher))
    return distance_weight * distance + angle_weight * angle


def _offsets(embeddings: Tensor) -> Tensor:
    """(M, M, C): element i, j leads from image i to image j."""
    return embeddings.unsqueeze(0) - embeddings.unsqueeze(1)


def _distances(offsets: Tensor) -> Tensor:
    """(M, M), over their mean between different images."""
    m = len(offsets)
    itself = torch.eye(m, dtype=torch.bool, device=offsets.device)
    distances = offsets.square().sum(-1).clamp(min=SAME_EPS**2).sqrt().masked_fill(itself, 0)
    return distances / (distances.sum() / max(1, m * (m - 1))).clamp(min=SAME_EPS)


def _cosines(offsets: Tensor) -> Tensor:
    """(M, M, M): element i, j, k belongs to the angle at image i."""
    directions = F.normalize(offsets, dim=-1, eps=SAME_EPS)
    return directions @ directions.mT


def _mean_huber(student: Tensor, teacher: Tensor) -> Tensor:
    # Not reduction="mean", which is NaN where no image has a valid pixel.
    return F.smooth_l1_loss(student, teacher, reduction="sum") / max(1, teacher.numel())
