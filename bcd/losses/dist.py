"""DIST: distillation by correlation, which leaves scale and shift of the probabilities to the student."""

import torch.nn.functional as F
from torch import Tensor
from torch.linalg import vector_norm

from bcd.config.ranges import NonNegative, Positive
from bcd.losses.masked import masked_mean, prepare

EPS = 1e-8  # added to the product of the norms, as in the official code


def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    temperature: Positive = 1.0,
    beta: NonNegative = 1.0,
    gamma: NonNegative = 1.0,
) -> Tensor:
    """T^2 * (beta * inter + gamma * intra), with p = softmax over classes of z / T and r the Pearson correlation.

        inter = 1 - mean over valid pixels of r(p_t, p_s) over the classes
        intra = 1 - mean over classes of r(p_t, p_s) over the valid pixels of the whole batch

    Huang et al., "Knowledge Distillation from A Stronger Teacher" (arXiv 2205.10536; hunto/DIST_KD,
    segmentation/losses/dist_kd.py, which has T = 1 and no mask); T^2 as in mmrazor/models/losses/dist_loss.py.
    A correlation is numerator / (product of norms + 1e-8). So it is 0 for what is constant, the loss then above 0 even
    at equality, and for equal maps it falls short of 1 by about 1e-8 over the squared norm.

    Args:
        student, teacher: logits (N, C, H, W).
        valid: bool (N, H, W).
        temperature: T > 0.
        beta, gamma: weights of the two parts.

    Raises:
        UserError: the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    p_student = F.softmax(student / temperature, dim=1)
    p_teacher = F.softmax(teacher / temperature, dim=1)
    over_classes = (p - p.mean(1, keepdim=True) for p in (p_student, p_teacher))
    inter = masked_mean(1 - _cosine(*over_classes, dim=1), valid)
    over_pixels = (_centred(p, valid.unsqueeze(1)) for p in (p_student, p_teacher))
    intra = (1 - _cosine(*over_pixels, dim=(0, 2, 3))).mean() * valid.any()
    return temperature**2 * (beta * inter + gamma * intra)


def _centred(p: Tensor, valid: Tensor) -> Tensor:
    """`p` (N, C, H, W) minus each class's mean over the valid pixels of the batch; 0 where `valid` is not set."""
    mean = (p * valid).sum((0, 2, 3), keepdim=True) / valid.sum().clamp(min=1)
    return (p - mean) * valid


def _cosine(a: Tensor, b: Tensor, *, dim: int | tuple[int, ...]) -> Tensor:
    return (a * b).sum(dim) / (vector_norm(a, dim=dim) * vector_norm(b, dim=dim) + EPS)
