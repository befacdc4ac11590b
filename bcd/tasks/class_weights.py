"""Class weights of cross-entropy, from how many pixels of the labelled training images each class has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bcd.errors import UserError
from bcd.label import IGNORE


def sqrt_inverse(share: np.ndarray) -> np.ndarray:
    """`sqrt(median(share) / share)`: median frequency balancing, softened by a root.

    The median over the share is that of Eigen and Fergus, "Predicting depth, surface normals and semantic labels",
    ICCV 2015, section 6.3.2, but of all pixels rather than of the images that show a class.
    """
    return np.sqrt(np.median(share) / share)


def enet(share: np.ndarray) -> np.ndarray:
    """`1 / ln(1.02 + share)`, from 1.4 to 50 (Paszke et al., "ENet", arXiv 1606.02147, section 5.2)."""
    return 1.0 / np.log(1.02 + share)


# Name in a recipe -> weights of the classes, float64 (C,), from their shares of the pixels, float64 (C,) above 0.
CLASS_WEIGHTS = {"sqrt_inverse": sqrt_inverse, "enet": enet}


def class_weights(chosen: str | Sequence[float], labels: Iterable[np.ndarray], classes: Sequence[str]) -> np.ndarray:
    """The weight of each class, float32 (C,), above 0.

    Args:
        chosen: a key of `CLASS_WEIGHTS`, or the weights themselves.
        labels: uint8 (H, W) of the labelled training images, read only where the weights depend on them.
        classes: the names of the C classes.

    Raises:
        UserError: a class without pixels where the weights depend on pixels. `bcd.runs.resolve` checks a list's length.
    """
    if not isinstance(chosen, str):
        return np.asarray(chosen, np.float32)
    pixels = sum((np.bincount(label.ravel(), minlength=IGNORE + 1) for label in labels), np.zeros(IGNORE + 1, np.int64))
    counts = pixels[: len(classes)]
    if absent := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise UserError(
            f"recipe.class_weights: '{chosen}' weighs a class by its pixels, and no labelled training image shows "
            f"{', '.join(absent)}; write the weights as a list, or none"
        )
    return CLASS_WEIGHTS[chosen](counts / counts.sum()).astype(np.float32)
