"""Boundary-privileged distillation: class by class at the edges of the label, channel by channel in the bodies.

Liu et al., "BPKD: Boundary Privileged Knowledge Distillation for Semantic Segmentation" (arXiv 2306.08075). Neither its
equations nor its training code were at hand. The formulas follow two re-implementations of others;
docs/reference/methods.md says what those two agree on and what is decided here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.config.ranges import NonNegative, OddWidth, Positive
from bcd.errors import UserError
from bcd.losses.channel import cwd
from bcd.losses.masked import masked_mean, prepare


def bpkd_edge(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    image_label: Tensor,
    temperature: Positive = 4.0,
    alpha: NonNegative = 2.0,
    width: OddWidth = 7,
) -> Tensor:
    """alpha T^2 * mean over images of sum_c 1 / n_c sum_i M_c(i) KL(p_t(i) || p_s(i)).

    p = softmax over classes of M z / T, M is `edge_share`, and n_c is the number of an image's valid pixels where
    M_c > 0. Images without edges are left out.

    Args:
        student, teacher: logits (N, C, H, W).
        valid: bool (N, H, W).
        image_label: int64 (N, Hi, Wi), 255 = ignore.
        temperature: T > 0.
        alpha: weight of the classes.
        width: see `edge_share`.

    Raises:
        UserError: `width` is even or below 3, or the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    share = edge_share(image_label, student, width) * valid.unsqueeze(1)
    log_student = F.log_softmax(student * share / temperature, dim=1)
    log_teacher = F.log_softmax(teacher * share / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
    weight = (share / (share > 0).sum((2, 3), keepdim=True).clamp(min=1)).sum(1)
    per_image = (divergence * weight).flatten(1).sum(1)
    return alpha * temperature**2 * masked_mean(per_image, (share > 0).flatten(1).any(1))


def bpkd_body(
    student: Tensor,
    teacher: Tensor,
    *,
    valid: Tensor | None = None,
    image_label: Tensor,
    temperature: Positive = 4.0,
    width: OddWidth = 7,
) -> Tensor:
    """`cwd` of the logits times 1 - M, with M from `edge_share`; an image without labels has no known edges: M = 0.

    Arguments as for `bpkd_edge`.

    Raises:
        UserError: `width` is even or below 3, or the channel counts differ.
    """
    student, teacher, valid = prepare(student, teacher, valid, same_channels=True)
    body = 1 - edge_share(image_label, student, width)
    return cwd(student * body, teacher * body, valid=valid, temperature=temperature)


def edge_share(image_label: Tensor, logits: Tensor, width: int) -> Tensor:
    """Share of each cell's labelled image pixels that lie in the edge band of class c: float (N, C, H, W) in 0 .. 1.

    The band is the dilation minus the erosion of the class's mask by a `width` x `width` square: the pixels whose
    window holds both c and another class. Ignored pixels and what is outside the image count as neither, so they make
    no edge, and lie in no band.

    Args:
        image_label: int64 (N, Hi, Wi); 255, or any other number that is no class, is ignored.
        logits: gives C, H, W and the dtype of the result.
        width: side of the square in image pixels, odd and at least 3.

    Raises:
        UserError: `width` is even or below 3.
    """
    if width < 3 or width % 2 == 0:
        raise UserError(f"bpkd: width must be an odd number of at least 3, not {width}")
    classes, label = logits.shape[1], image_label.to(torch.int16)
    known = (label >= 0) & (label < classes)
    highest = _dilate(label.masked_fill(~known, -1), width)
    lowest = -_dilate((-label).masked_fill(~known, -classes), width)
    mixed = known & (highest != lowest)
    labelled = _share(known, logits).clamp(min=torch.finfo(logits.dtype).tiny)
    share = torch.zeros_like(logits)
    # A class at a time: one-hot masks of all classes at image resolution would outweigh the network's activations.
    for c in label[mixed].unique().tolist():
        share[:, c] = _share(mixed & _dilate(label == c, width), logits) / labelled
    return share


def _share(mask: Tensor, logits: Tensor) -> Tensor:
    """Share of each cell of the logits that the bool (N, Hi, Wi) covers, (N, H, W)."""
    return F.adaptive_avg_pool2d(mask.to(logits.dtype), (logits.shape[2], logits.shape[3]))


def _dilate(image: Tensor, width: int) -> Tensor:
    """Maximum of (N, H, W), integers or booleans, over a square window cut off at the image's border.

    By doubling, and several times faster on a CPU than max-pooling a float mask.
    """
    lowest = False if image.dtype == torch.bool else torch.iinfo(image.dtype).min
    half = width // 2
    for dim, around in ((1, (0, 0, half, half)), (2, (half, half))):
        image, span = F.pad(image, around, value=lowest), 1
        while span < width:
            step = min(span, width - span)
            left = image.shape[dim] - step
            image, span = torch.maximum(image.narrow(dim, 0, left), image.narrow(dim, step, left)), span + step
    return image
