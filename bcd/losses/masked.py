"""What every loss shares: working precision, the exclusion of invalid pixels, and means over what is left."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.errors import UserError

P = ParamSpec("P")
# Below this norm a feature counts as directionless; a smaller bound would let a dead pixel's gradient explode.
UNIT_EPS = 1e-4


def prepare(
    student: Tensor, teacher: Tensor, valid: Tensor | None, *, same_channels: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Bring both maps into working precision, cut the teacher from the graph and blank invalid pixels.

    Args:
        student, teacher: float (N, C, H, W); equal N, H, W.
        valid: bool (N, H, W) or None for all pixels.
        same_channels: whether the loss compares channel c with channel c.

    Returns:
        student and teacher in float32 (float64 if the student is float64), and `valid` as a bool (N, H, W).

    Raises:
        ValueError: the maps or the mask do not fit each other.
        UserError: the channel counts differ although `same_channels` is set.
    """
    n, _, h, w = student.shape
    if teacher.shape[0] != n or teacher.shape[2:] != student.shape[2:]:
        raise ValueError(f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ in N, H or W")
    if valid is not None and valid.shape != (n, h, w):
        raise ValueError(f"valid {tuple(valid.shape)} does not fit maps of shape {tuple(student.shape)}")
    if same_channels and teacher.shape[1] != student.shape[1]:
        raise UserError(
            f"this term compares channel by channel, but the student's map has {student.shape[1]} channels and "
            f"the teacher's {teacher.shape[1]}: choose taps with equal channels, such as logits"
        )
    dtype = torch.promote_types(student.dtype, torch.float32)
    student, teacher = student.to(dtype), teacher.detach().to(dtype)
    if valid is None:
        return student, teacher, torch.ones(n, h, w, dtype=torch.bool, device=student.device)
    # Blanked rather than weighted by zero later: a padded pixel may hold inf or NaN, and 0 * NaN is NaN.
    hole = ~valid.unsqueeze(1)
    return student.masked_fill(hole, 0), teacher.masked_fill(hole, 0), valid


def full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorates a loss, or a `forward`, to run outside autocast, which would do its products in half precision."""

    @wraps(loss)
    def run(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return loss(*args, **kwargs)

    return run


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where the bool `mask` of the same shape is set; 0 (and no gradient) where it never is."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def masked_avg_pool(features: Tensor, valid: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean over the valid pixels of each `size` x `size` cell, and which cells have any; the border cuts cells off.

    Args:
        features: float (N, C, H, W), 0 where not valid.
        valid: bool (N, H, W).

    Returns:
        float (N, C, H', W') and bool (N, H', W').
    """
    share = F.avg_pool2d(valid.unsqueeze(1).to(features.dtype), size, ceil_mode=True)
    means = F.avg_pool2d(features, size, ceil_mode=True) / share.clamp(min=1 / size**2)
    return means, share.squeeze(1) > 0


def masked_max_pool(features: Tensor, valid: Tensor, window: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Maximum over the valid pixels of each window, and which windows have any; the border cuts windows off.

    Args:
        features: float (N, C, H, W).
        valid: bool (N, H, W).
        window: side, or height and width.

    Returns:
        float (N, C, H', W'), 0 where no pixel is valid, and bool (N, H', W').
    """
    lowest = features.masked_fill(~valid.unsqueeze(1), torch.finfo(features.dtype).min)
    cells = F.max_pool2d(valid.unsqueeze(1).to(features.dtype), window, ceil_mode=True) > 0
    return F.max_pool2d(lowest, window, ceil_mode=True).masked_fill(~cells, 0), cells.squeeze(1)


def spatial_kl(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """KL(teacher || student) of each channel's softmax over the valid pixels.

    Args:
        student, teacher: unnormalised log-probabilities, float (N, C, H, W).
        valid: bool (N, H, W).

    Returns:
        float (N, C), in nats; 0 for an image without valid pixels.
    """
    hole = ~valid.flatten(1).unsqueeze(1)
    floor = torch.finfo(student.dtype).min / 2  # finite, so that an image without valid pixels makes no NaN

    def log_softmax(logits: Tensor) -> Tensor:
        return F.log_softmax(logits.flatten(2).masked_fill(hole, floor), dim=-1)

    return F.kl_div(log_softmax(student), log_softmax(teacher), reduction="none", log_target=True).sum(-1)
