"""One vector per image, for losses that relate the images of a batch."""

from torch import Tensor


def embed(features: Tensor, valid: Tensor) -> Tensor:
    """Average of each image's features over its valid pixels; images without any are left out.

    Args:
        features: float (N, C, H, W), 0 at invalid pixels.
        valid: bool (N, H, W).

    Returns:
        float (M, C), M <= N, in the order of the batch.
    """
    pixels = valid.flatten(1).sum(1)
    seen = pixels > 0
    return features.flatten(2).sum(-1)[seen] / pixels[seen].unsqueeze(1)
