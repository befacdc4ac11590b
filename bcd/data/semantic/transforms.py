"""Training augmentation and evaluation preprocessing on uint8 arrays.

Images are uint8 `(H, W, 3)` RGB, labels uint8 `(H, W)` with 255 = ignore. Every random choice comes from the
generator that the caller passes in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from bcd.config.schema.recipes import Resize
from bcd.label import IGNORE

cv2.setNumThreads(0)  # the stream's workers already use every core

CROP_TRIES = 10

Size = tuple[int, int]  # height, width


def new_size(size: Size, short_side: int, longest: int) -> Size:
    """The size once the short side has become `short_side`, unless the long side would then exceed `longest`.

    detectron2 calls it ResizeShortestEdge (detectron2/data/transforms/augmentation_impl.py), whose halves are rounded
    up too; mmsegmentation calls it Resize with `scale=(longest, short_side), keep_ratio=True`.
    """
    height, width = size
    scale = short_side / min(height, width)
    new: tuple[float, float] = (short_side, scale * width) if height < width else (scale * height, short_side)
    if max(new) > longest:
        shrink = longest / max(new)
        new = (new[0] * shrink, new[1] * shrink)
    return max(1, int(new[0] + 0.5)), max(1, int(new[1] + 0.5))


def evaluated_size(size: Size, resize: Resize, factor: float = 1.0) -> Size:
    """The size at which evaluation shows an image: its short side becomes the largest one of `resize`.

    factor: multiplies both limits first, which are rounded down (mmsegmentation's RandomResize with a `ratio_range`).
    """
    return new_size(size, max(1, int(factor * max(resize.short_sides))), int(factor * resize.max_long_side))


@dataclass(frozen=True)
class Augment:
    """How a training sample is varied.

    crop          (height, width) of the result in pixels
    scale         (low, high): the image is first resized by a factor drawn uniformly from this range
    resize        when set, the factor is relative to the size that this gives the image
    flip          probability of a horizontal flip
    photometric   whether brightness, contrast, saturation and hue vary (see `distort`)
    cat_max_ratio when set, up to ten crops are drawn until no class covers this share of the labelled pixels
                  (as in mmsegmentation's RandomCrop)
    mean, std     per RGB channel, in units of 0..255
    """

    crop: Sequence[int]
    scale: Sequence[float] = (1.0, 1.0)
    resize: Resize | None = None
    flip: float = 0.5
    photometric: bool = True
    cat_max_ratio: float | None = None
    mean: Sequence[float] = (123.675, 116.28, 103.53)
    std: Sequence[float] = (58.395, 57.12, 57.375)


def augment(
    image: np.ndarray, label: np.ndarray, rng: np.random.Generator, a: Augment
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random view of one sample.

    Returns the normalised image float32 (3, h, w), the label uint8 (h, w) and `real` bool (h, w), all
    C-contiguous. An image smaller than the crop is padded at the bottom and on the right: with the mean
    colour (0 once normalised), label 255 and `real` False.
    """
    (low, high), (height, width) = a.scale, label.shape
    factor = rng.uniform(low, high)
    if a.resize:
        size = evaluated_size((height, width), a.resize, factor)
        image, label = resize_linear(image, size), resize_label(label, size)
    elif factor != 1.0:
        size = max(1, round(factor * height)), max(1, round(factor * width))
        image, label = resize_pair(image, label, size)
    window = choose_crop(label, rng, a)
    image, label = image[window], label[window]
    if a.photometric:
        image = distort(image, rng)
    rows, columns = label.shape
    result = np.zeros((3, *a.crop), np.float32)
    result[:, :rows, :columns] = normalise(image, a.mean, a.std)
    padded = np.full(a.crop, IGNORE, np.uint8)
    padded[:rows, :columns] = label
    real = np.zeros(a.crop, bool)
    real[:rows, :columns] = True
    if rng.random() < a.flip:
        result, padded, real = (np.ascontiguousarray(view[..., ::-1]) for view in (result, padded, real))
    return result, padded, real


def choose_crop(label: np.ndarray, rng: np.random.Generator, a: Augment) -> tuple[slice, slice]:
    """A window of `label` of at most the crop's size, drawn again while one class dominates it."""
    size = np.minimum(label.shape, a.crop)
    for _ in range(CROP_TRIES if a.cat_max_ratio is not None else 1):
        top, left = (int(rng.integers(0, free + 1)) for free in label.shape - size)
        window = slice(top, top + size[0]), slice(left, left + size[1])
        if a.cat_max_ratio is None:
            break
        counts = np.bincount(label[window].ravel(), minlength=256)[:IGNORE]
        if counts.max() < a.cat_max_ratio * counts.sum():
            break
    return window


def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Photometric distortion of a uint8 (H, W, 3) RGB image; the input stays as it is.

    Brightness (up to ±32), contrast (×0.5..1.5), saturation (×0.5..1.5) and hue (up to ±36°) are each varied
    with probability one half; contrast comes before or after the two colour steps, again by a coin. The
    recipe of SSD (Liu et al., ECCV 2016, section 2.2 "Data augmentation", and its released code), which
    mmsegmentation calls PhotoMetricDistortion.
    """
    image = np.ascontiguousarray(image)
    coins = rng.random(5) < 0.5
    brightness, hue = rng.uniform(-32, 32), int(rng.integers(-18, 18))
    contrast, saturation = rng.uniform(0.5, 1.5, 2)
    if coins[0]:
        image = cv2.LUT(image, line(1.0, brightness))
    if coins[1] and coins[2]:
        image = cv2.LUT(image, line(contrast, 0.0))
    if coins[3] or coins[4]:
        # 8-bit OpenCV hue runs from 0 to 179, two degrees a step.
        hues = ((np.arange(256) + hue * coins[4]) % 180).astype(np.uint8)
        tables = np.stack([hues, line(saturation if coins[3] else 1.0, 0.0), line(1.0, 0.0)], axis=-1)
        hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables[None])
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if coins[1] and not coins[2]:
        image = cv2.LUT(image, line(contrast, 0.0))
    return image


def line(gain: float, offset: float) -> np.ndarray:
    """Lookup table of `gain * value + offset`, rounded and clipped to 0..255: uint8 (256,)."""
    return np.clip(np.rint(np.arange(256) * gain + offset), 0, 255).astype(np.uint8)


def normalise(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """`(image - mean) / std` per channel: uint8 (H, W, 3) to contiguous float32 (3, H, W)."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    planes -= np.array(mean, np.float32)[:, None, None]
    planes /= np.array(std, np.float32)[:, None, None]
    return planes


def resize_pair(image: np.ndarray, label: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Image and label at `size`; the image is averaged over areas where it shrinks, else interpolated linearly."""
    shrinks = size[0] <= label.shape[0] and size[1] <= label.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=way), resize_label(label, size)


def resize_linear(image: np.ndarray, size: Size) -> np.ndarray:
    """The image at `size`, interpolated linearly even where it shrinks: what mmsegmentation shows its models."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_label(label: np.ndarray, size: Size) -> np.ndarray:
    """The label at `size`, of the nearest pixel (by pixel centres), so that no label value is ever invented."""
    return cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
