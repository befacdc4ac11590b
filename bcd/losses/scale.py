"""Taming the scale of features in losses that do not depend on it."""

from collections.abc import Sequence

from torch import Tensor


def tame(features: Tensor, dim: Sequence[int]) -> Tensor:
    """`features` over their largest magnitude along `dim`, where that exceeds 1; magnitudes up to 1 are left alone.

    For losses that are unchanged when the features of `dim` grow by a common factor. They square the features more than
    once, which overflows from 1e10 on. Autograd takes the divisor for a constant, which in such a loss it may.
    """
    return features / features.detach().abs().amax(tuple(dim), keepdim=True).clamp(min=1)
