"""Cross-image relations of pixels within a batch, and the tiled divergence that CIRKD's two terms share."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.config.ranges import Positive
from bcd.losses.masked import UNIT_EPS, full_precision, masked_avg_pool, prepare
from bcd.losses.tiled import TILE_ELEMENTS, known_gradient

# Maps with both sides at least POOL_FROM are averaged over POOL x POOL cells first, as published.
POOL_FROM, POOL = 256, 4


@full_precision
def cirkd_batch(
    student: Tensor, teacher: Tensor, *, valid: Tensor | None = None, temperature: Positive = 0.1
) -> Tensor:
    """Mean over the ordered pairs of images (i, j) of mean over pixels a of i of KL(p_t(a; j) || p_s(a; j)).

    p(a; j) is the softmax over the pixels b of image j of cos(f_a, f_b) / tau; i = j is one of the pairs. Exact; the
    memory grows with the number of pixels, not with its square.

    Yang et al., "Cross-Image Relational Knowledge Distillation for Semantic Segmentation" (arXiv 2204.06986),
    mini-batch pixel-to-pixel distillation, as in github.com/winycg/CIRKD (losses/cirkd_mini_batch.py): no T^2, and maps
    of at least 256 x 256 are average-pooled 4 x 4 first. Deviations: masked (a, b and the pools run over valid pixels,
    i and j over images that have some); features shorter than 1e-4 count as directionless. Padding changes nothing
    unless it lifts a map to 256 x 256.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W); channel counts may differ.
        valid: bool (N, H, W).
        temperature: tau > 0.
    """
    student, teacher, valid = prepare(student, teacher, valid)
    if min(valid.shape[1:]) >= POOL_FROM:
        (student, cells), (teacher, _) = (masked_avg_pool(x, valid, POOL) for x in (student, teacher))
        valid = cells
    counts = valid.flatten(1).sum(1).tolist()
    return cross_image_kl(unit(pixels(student, valid)), unit(pixels(teacher, valid)), counts, temperature)


def cross_image_kl(
    student: Tensor, teacher: Tensor, counts: list[int], temperature: float, rows: int | None = None
) -> Tensor:
    """The loss of `cirkd_batch` on the pixels of all images, one image after the other.

    Args:
        student, teacher: float (M, C_s) and (M, C_t).
        counts: pixels of each image, M in all; images without any are left out.
        temperature: tau > 0.
        rows: relations are held for so many pixels at a time (default: as many as fit TILE_ELEMENTS); the result
            depends on it only through rounding.
    """
    sizes = [count for count in counts if count]
    counted = torch.tensor(sizes, dtype=torch.int64, device=student.device)
    weight = (1 / (counted.to(student.dtype) * len(sizes) ** 2)).repeat_interleave(counted)
    features, gradient = student.detach(), torch.zeros_like(student)
    loss = student.new_zeros(())
    images = zip(features.split(sizes), teacher.split(sizes), gradient.split(sizes), strict=True)
    for keys, teacher_keys, key_gradient in images:
        loss += relation_kl(features, teacher, keys, teacher_keys, weight, temperature, gradient, key_gradient, rows)
    return known_gradient(student, loss, gradient)


@torch.no_grad()
def relation_kl(
    student: Tensor,
    teacher: Tensor,
    student_keys: Tensor,
    teacher_keys: Tensor,
    weight: Tensor,
    temperature: float,
    gradient: Tensor,
    key_gradient: Tensor | None = None,
    rows: int | None = None,
) -> Tensor:
    """Sum over a of w_a KL(softmax_b(t_a . u_b / tau) || softmax_b(s_a . k_b / tau)), a tile of rows a at a time.

    With S the student's logits, dL/dS_ab = w_a (p_s - p_t)_ab is known while the tile exists, so the gradient is
    gathered there: no logits outlive their tile, and there is nothing left for a backward pass to compute.

    Args:
        student, teacher: float (M, C_s) and (M, C_t), the pixels a.
        student_keys, teacher_keys: float (K, C_s) and (K, C_t), what they are related to: k and u.
        weight: float (M,).
        temperature: tau > 0.
        gradient, key_gradient: buffers like `student` and `student_keys` to which the gradient is added.
        rows: rows of a tile; default as many as fit TILE_ELEMENTS.
    """
    rows = rows or max(1, TILE_ELEMENTS // max(1, len(student_keys)))
    loss = student.new_zeros(())
    for tile in (slice(i, i + rows) for i in range(0, len(student), rows)):
        log_student = F.log_softmax(torch.mm(student[tile] / temperature, student_keys.mT), dim=1)
        log_teacher = F.log_softmax(torch.mm(teacher[tile] / temperature, teacher_keys.mT), dim=1)
        relation = log_teacher.exp()
        row_weight = weight[tile].unsqueeze(1)
        loss += (log_teacher.sub_(log_student).mul_(relation) * row_weight).sum()
        slope = log_student.exp_().sub_(relation).mul_(row_weight / temperature)
        gradient[tile].addmm_(slope, student_keys)
        if key_gradient is not None:
            key_gradient.addmm_(slope.mT, student[tile])
    return loss


def pixels(features: Tensor, mask: Tensor) -> Tensor:
    """The pixels of (N, C, H, W) where the bool (N, H, W) is set, as (M, C) in raster order, image by image."""
    rows = features.permute(0, 2, 3, 1)
    return rows.flatten(0, 2) if mask.all() else rows[mask]


def unit(rows: Tensor) -> Tensor:
    """(..., C) scaled to unit length; what is shorter than UNIT_EPS is divided by UNIT_EPS instead."""
    return rows * rows.square().sum(-1, keepdim=True).clamp(min=UNIT_EPS**2).rsqrt()
