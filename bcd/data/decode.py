"""Decoding images and label maps, refusing what is damaged instead of returning garbage."""

import io
from collections.abc import Mapping

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


def read_mat(data: bytes, name: str, *path: str) -> np.ndarray:
    """The label map in a MATLAB file, the variable `path[0]` or the field `path[1]` of that struct: int64 (H, W).

    Raises UserError naming `name` when the data is no such file, or holds no label map there.
    """
    from scipy.io import loadmat

    variable, *fields = path
    try:
        value = loadmat(io.BytesIO(data), variable_names=[variable])[variable]
        for field in fields:
            value = value[field][0, 0]
    except Exception as error:  # scipy's parser stumbles over damaged files with whatever comes first
        where = f"{name} has no readable label map {'.'.join(path)}"
        raise UserError(f"{where} ({type(error).__name__}: {error}); get the file anew") from error
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "iuf":  # MATLAB counts in floats, too
        with np.errstate(invalid="ignore"):
            label = value.astype(np.int64)
        if (label == value).all():
            return label
    raise UserError(f"{name}: {'.'.join(path)} is not a map of whole numbers; get the file anew")


def label_table(classes: Mapping[int, int]) -> np.ndarray:
    """A table for `look_up` from stored value to class (255 = ignore): int16 (largest value + 1,), -1 elsewhere."""
    table = np.full(max(classes) + 1, -1, np.int16)
    table[list(classes)] = list(classes.values())
    return table


def look_up(label: np.ndarray, table: np.ndarray, name: str) -> np.ndarray:
    """The classes uint8 (H, W) of an integer label map (H, W), by a `label_table`.

    Raises UserError naming `name` and the smallest stored value that the table does not know.
    """
    values = np.flatnonzero(np.bincount(label.ravel())) if label.min(initial=0) >= 0 else np.unique(label)
    known = (values >= 0) & (values < len(table))
    known[known] = table[values[known]] >= 0
    if not known.all():
        raise UserError(f"mask {name} holds the value {values[~known][0]}, which has no class; get the file anew")
    return table[label].astype(np.uint8)


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
