"""Decoding images and label maps, refusing what is damaged instead of returning garbage."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from bcd.errors import UserError
from bcd.label import IGNORE


def read_image(data: bytes, name: str) -> np.ndarray:
    """Decode an 8-bit image file to uint8 (H, W, 3) RGB.

    EXIF orientation is not applied, since label maps belong to the stored pixels; alpha is dropped.
    Raises UserError naming `name` when the data is truncated, damaged or deeper than 8 bits.
    """
    image = _decode(data, name)
    if image.mode.startswith(("I", "F")):
        raise UserError(f"{name} has more than 8 bits per channel; convert it to 8 bits")
    return np.array(image.convert("RGB"))


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode a grey or palette image file to uint8 (H, W): stored values, palette indices for a palette.

    Raises UserError naming `name` when the data is truncated or damaged, or the image is neither.
    """
    image = _decode(data, name)
    if image.mode not in ("L", "P"):
        raise UserError(f"{name} is a {image.mode} image; a mask must hold class ids in one 8-bit channel")
    return np.array(image)


def check_pair(image: np.ndarray, label: np.ndarray, name: str, classes: int) -> None:
    """Raise UserError unless the mask fits the image and holds only 0..classes-1 and 255 (ignore).

    image: uint8 (H, W, 3); label: uint8 (H, W).
    """
    if image.shape[:2] != label.shape:
        raise UserError(
            f"mask of {name} is {label.shape[0]}x{label.shape[1]} but the image is "
            f"{image.shape[0]}x{image.shape[1]} (height x width); give it a mask of its size"
        )
    check_label(label, name, classes)


def check_label(label: np.ndarray, name: str, classes: int) -> None:
    """Raise UserError unless the uint8 (H, W) label holds only 0..classes-1 and 255 (ignore)."""
    wrong = label[(label >= classes) & (label != IGNORE)]
    if wrong.size:
        raise UserError(
            f"mask of {name} holds the value {wrong[0]}, outside 0..{classes - 1} and {IGNORE} (ignore); "
            "mend the mask or the number of classes"
        )


def _decode(data: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} is not a readable image ({error}); get the file anew") from error
    return image
