"""Hint learning: the plain difference of features."""

from torch import Tensor

from bcd.losses.masked import masked_mean, prepare


def fitnet(student: Tensor, teacher: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean over valid pixels and channels of (f_s - f_t)^2.

    Romero et al., "FitNets: Hints for Thin Deep Nets" (arXiv 1412.6550), as in CIRKD (losses/fitnet.py), whose 1x1
    regressor without bias is the projector that the term is wired with. That code has no mask.

    Args:
        student, teacher: features (N, C, H, W), compared channel by channel.
        valid: bool (N, H, W).

    Raises:
        UserError: the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    return masked_mean((student - teacher).square().mean(1), valid)
