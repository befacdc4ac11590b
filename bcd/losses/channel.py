"""Channel-wise distillation: where in the image each channel is active."""

from torch import Tensor

from bcd.losses.masked import masked_mean, prepare, spatial_kl


def cwd(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    label: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """T^2 / (N C) * sum over images and channels of KL(phi_t || phi_s), phi = softmax over pixels of f / T.

    Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction" (arXiv 2011.13256), in the numerically safe
    form of mmrazor (mmrazor/models/losses/cwd.py); that code has no mask. Here N counts images with a valid pixel.

    Args:
        student, teacher: logits or features (N, C, H, W), compared channel by channel.
        valid: bool (N, H, W).
        label: not used.
        temperature: T > 0.

    Raises:
        UserError: the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    divergence = spatial_kl(student / temperature, teacher / temperature, valid)
    counted = valid.flatten(1).any(1, keepdim=True).expand_as(divergence)
    return temperature**2 * masked_mean(divergence, counted)
