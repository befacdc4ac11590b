"""Intra-class feature variation: how close each pixel's feature is to the mean feature of its class."""

import torch
from torch import Tensor

from bcd.label import IGNORE
from bcd.losses.masked import UNIT_EPS, full_precision, prepare


@full_precision
def ifvd(
    student: Tensor, teacher: Tensor, *, valid: Tensor | None = None, label: Tensor, official: bool = False
) -> Tensor:
    """Mean over the labelled valid pixels of (v_s - v_t)^2, v = cos(f, mean f of the image's pixels of the same class).

    The gradient also flows through the class means.

    Wang et al., "Intra-class Feature Variation Distillation for Semantic Segmentation" (ECCV 2020), as in
    github.com/YukangWang/IFVD (utils/criterion.py) and github.com/winycg/CIRKD (losses/ifvd.py). Three things deviate.
    It is masked. A pixel without a label does not count, where the official codes count it as a difference of 0.
    Features and means shorter than 1e-4 count as directionless. The official 1e-6 in the means' denominators cancels in
    the cosine.

    Args:
        student, teacher: features (N, C_s, H, W) and (N, C_t, H, W); channel counts may differ.
        valid: bool (N, H, W).
        label: int64 (N, H, W), 255 = ignore; every other value is a class.
        official: divide by all N H W pixels, as the official codes do.
    """
    student, teacher, valid = prepare(student, teacher, valid)
    counted = (valid & (label != IGNORE)).flatten(1)
    classes = label.flatten(1).where(counted, IGNORE)
    present = classes.unique()
    present = present[present != IGNORE]
    members = (classes.unsqueeze(2) == present).to(student.dtype)
    difference = variation(student.flatten(2), members) - variation(teacher.flatten(2), members)
    return difference.square().sum() / (counted.numel() if official else counted.sum().clamp(min=1))


def variation(features: Tensor, members: Tensor) -> Tensor:
    """Cosine in [-1, 1] of each pixel with the mean of its class, (N, L); 0 for a pixel of no class.

    Products with the one-hot `members` are as cheap as segment sums. They keep the (N, C, L) layout, add in the same
    order on every run and make no copy of the features.

    Args:
        features: float (N, C, L).
        members: one-hot (N, L, K) of the same dtype; all 0 for a pixel of no class.
    """
    shares = members / members.sum(1, keepdim=True).clamp(min=1)
    means = torch.bmm(features, shares)
    means = means * means.square().sum(1, keepdim=True).clamp(min=UNIT_EPS**2).rsqrt()
    along = (torch.bmm(means.mT, features) * members.mT).sum(1)
    return along * features.square().sum(1).clamp(min=UNIT_EPS**2).rsqrt()
