"""Decoding images and label maps, refusing what is damaged instead of returning garbage."""

import io
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from bcd.errors import UserError
from bcd.label import IGNORE

# What photographs and masks are stored as. Pillow knows more, and hands PostScript to another program.
# It tries them in this order, and imports all that it knows before the first that is not among its usual five.
STORED = ("BMP", "GIF", "JPEG", "PNG", "PPM", "JPEG2000", "TIFF", "WEBP")
ONE_CHANNEL = "a mask must hold class ids in one 8-bit channel, so save it as an 8-bit grey PNG"
ORIENTATION = 0x0112  # the EXIF tag that says how a camera was held
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what brings the stored pixels into the order of the shown ones


def read_image(data: bytes, name: str) -> np.ndarray:
    """Decode an 8-bit image file to uint8 (H, W, 3) RGB, turned as viewers show it; alpha is dropped.

    Raises UserError naming `name` when the data is truncated, damaged or deeper than 8 bits.
    """
    image, stored = _decode(data, name)
    if image.mode.startswith(("I", "F")) or ";16" in stored:
        raise UserError(f"{name} has more than 8 bits per channel; convert it to 8 bits")
    return np.array(image.convert("RGB"))


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode a grey or palette image file to uint8 (H, W): stored values, palette indices for a palette.

    An orientation tag is applied as for an image. Raises UserError naming `name` when the data is truncated or damaged,
    or the image is neither, or grey with fewer than 8 bits, whose values decoders multiply.
    """
    image, stored = _decode(data, name)
    if image.mode not in ("L", "P"):
        raise UserError(f"{name} is of mode '{image.mode}'; {ONE_CHANNEL}")
    if stored in ("L;1", "L;2", "L;4"):
        raise UserError(f"{name} has {stored[-1]} bits per pixel; {ONE_CHANNEL}")
    return np.array(image)


def read_colours(data: bytes, name: str) -> np.ndarray:
    """Decode a mask that is read as colours to uint8 (H, W, 3) RGB, from an RGB, a palette or a grey image file.

    Raises UserError naming `name` when the data is truncated, damaged, deeper than 8 bits or has an alpha channel.
    """
    image, stored = _decode(data, name)
    if image.mode not in ("RGB", "P", "L"):
        raise UserError(f"{name} is of mode '{image.mode}'; a mask of colours must be 8-bit RGB, so save it as that")
    if ";16" in stored:
        raise UserError(f"{name} has more than 8 bits per channel; convert it to 8 bits")
    return np.array(image.convert("RGB"))


@contextmanager
def opened(data: bytes, name: str) -> Iterator[ImageFile.ImageFile]:
    """An image file whose header is read; its pixels are once the block asks for them.

    Raises UserError naming `name` for an empty file, and for what proves unreadable here or in the block.
    """
    if not data:
        raise UserError(f"{name} is an empty file, no image; get the file anew")
    try:
        with Image.open(io.BytesIO(data), formats=STORED) as image:
            yield image
    except UnidentifiedImageError:
        raise UserError(f"{name} is not a readable image ({', '.join(STORED)}); get the file anew") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} is not a readable image ({error}); get the file anew") from error


def shown_size(data: bytes, name: str) -> tuple[int, int]:
    """Height and width as viewers show them; only the header is read. Raises what `opened` raises."""
    with opened(data, name) as image:
        width, height = image.size
        return (height, width) if _orientation(image) <= 4 else (width, height)


def orientation(data: bytes) -> int:
    """The orientation tag of an image file, 2 to 8; 1 where there is none, or none that viewers would follow."""
    with Image.open(io.BytesIO(data), formats=STORED) as image:
        return _orientation(image)


def turned(data: bytes) -> str:
    """What a message says of an image file that is read turned; "" for one that is read as it is stored."""
    return " once turned by its orientation tag, as viewers show it" if orientation(data) > 1 else ""


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
        raise UserError(
            f"mask {name} holds the value {values[~known][0]}, which has no class; store class ids, or get it anew"
        )
    return table[label].astype(np.uint8)


def check_pair(image: np.ndarray, label: np.ndarray, name: str, classes: int, turned: str = "") -> None:
    """Raise UserError unless the mask fits the image and holds only 0..classes-1 and 255 (ignore).

    image: uint8 (H, W, 3); label: uint8 (H, W). turned: what the message says of the image's orientation.
    """
    if image.shape[:2] != label.shape:
        raise UserError(
            f"mask of {name} is {label.shape[0]}x{label.shape[1]} but the image is "
            f"{image.shape[0]}x{image.shape[1]} (height x width){turned}; give it a mask of its size"
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


def _decode(data: bytes, name: str) -> tuple[Image.Image, str]:
    """The image, turned by its orientation tag as viewers do it, and how its pixels are stored (Pillow's raw mode)."""
    with opened(data, name) as image:
        arguments = image.tile[0].args if image.tile else ""
        image.load()
        stored = arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""
        tag = _orientation(image)
        return image.transpose(TURNS[tag]) if tag in TURNS else image, stored


def _orientation(image: Image.Image) -> int:
    try:
        tag = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, struct.error):  # a damaged tag turns nothing, as in viewers
        return 1
    return tag if tag in TURNS else 1
