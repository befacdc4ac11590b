"""Probabilistic knowledge transfer: how likely each image of the batch is to pick each other as its neighbour."""

import torch
from torch import Tensor

from bcd.config.ranges import Positive
from bcd.losses.embedding import embed
from bcd.losses.masked import full_precision, prepare


@full_precision
def pkt(student: Tensor, teacher: Tensor, *, valid: Tensor | None = None, epsilon: Positive = 1e-7) -> Tensor:
    """Mean over image pairs of p_t log((p_t + epsilon) / (p_s + epsilon)), p_ij = k_ij / sum_j k_ij, k = (1 + cos) / 2.

    Passalis & Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer" (arXiv 1803.10837), in the
    form of the authors (github.com/passalis/probabilistic_kt, nn/pkt.py), which RepDistiller shares
    (distiller_zoo/PKT.py): the pair of an image with itself is included and the sum is divided by M^2, not by M. It
    takes embeddings; an embedding here is the average of the map over the image's valid pixels, and images without any
    are left out. One image gives 0. With epsilon > 0 the minimum is only nearly at equality: the gradient there is of
    the order of epsilon.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W); a 1x1 map is its own embedding.
        valid: bool (N, H, W).
        epsilon: > 0, added to norms and probabilities.
    """
    student, teacher, valid = prepare(student, teacher, valid)
    student, teacher = (_neighbour_probability(embed(x, valid), epsilon) for x in (student, teacher))
    divergence = teacher * ((teacher + epsilon) / (student + epsilon)).log()
    return divergence.sum() / max(1, divergence.numel())


def _neighbour_probability(embeddings: Tensor, epsilon: float) -> Tensor:
    """(M, M), rows sum to 1."""
    unit = embeddings / (torch.linalg.vector_norm(embeddings, dim=1, keepdim=True) + epsilon)
    kernel = ((1 + unit @ unit.mT) / 2).clamp(min=0)  # rounding may leave a cosine below -1
    return kernel / kernel.sum(1, keepdim=True)
