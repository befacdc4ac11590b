"""MATLAB label maps, tables of classes, orientation tags, depths; more of images: tests/data/formats/test_camvid.py."""

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from support.dataset_layouts import mat, spread

from bcd.data import decode
from bcd.errors import UserError

WHOLE = mat(S=spread(0, 7, 300), nested={"inner": spread(1).astype(np.uint8)})


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.uint64, np.float64])
def test_whole_numbers_of_any_kind(kind):
    label = decode.read_mat(mat(S=spread(0, 7, 200).astype(kind)), "m.mat", "S")
    assert label.dtype == np.int64
    np.testing.assert_array_equal(label, spread(0, 7, 200))


def test_field_of_a_struct():
    np.testing.assert_array_equal(decode.read_mat(WHOLE, "m.mat", "nested", "inner"), spread(1))


@pytest.mark.parametrize("path", [("T",), ("S", "inner"), ("nested", "outer")])
def test_what_is_not_there(path):
    with pytest.raises(UserError, match=rf"m\.mat has no readable label map {'.'.join(path)}"):
        decode.read_mat(WHOLE, "m.mat", *path)


@pytest.mark.parametrize("value", [np.full((2, 2), 0.5), np.full((2, 2), np.nan), "text", np.zeros((2, 2, 2))])
def test_what_is_no_label_map(value):
    with pytest.raises(UserError, match=r"m\.mat: S is not a map of whole numbers"):
        decode.read_mat(mat(S=value), "m.mat", "S")


@pytest.mark.parametrize("kind", ["EPS", "PCX", "TGA"])
def test_formats_that_no_photograph_has_are_refused_unopened(kind):
    """Pillow knows them; PostScript it would hand to another program."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, kind)
    with pytest.raises(UserError, match=r"x\.jpg is not a readable image \(BMP, GIF, JPEG.*\); get the file anew"):
        decode.read_image(buffer.getvalue(), "x.jpg")


def test_an_empty_file_is_called_empty():
    with pytest.raises(UserError, match=r"x\.jpg is an empty file, no image; get the file anew"):
        decode.read_image(b"", "x.jpg")


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
def test_formats_of_photographs_are_read(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 5), (9, 9, 9)).save(buffer, kind)
    assert decode.read_image(buffer.getvalue(), "x").shape == (5, 4, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_usual_formats_are_read_without_the_decoders_of_others(kind, tmp_path):
    file = tmp_path / "image"
    Image.new("RGB", (4, 5)).save(file, kind)
    code = (
        "import sys; from pathlib import Path; from bcd.data.decode import read_image; "
        "read_image(Path(sys.argv[1]).read_bytes(), 'x'); print('PIL.TiffImagePlugin' in sys.modules)"
    )
    call = [sys.executable, "-c", code, str(file)]
    assert subprocess.run(call, capture_output=True, check=True, text=True).stdout == "False\n"


@settings(max_examples=100, deadline=None)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_an_error(fraction):
    with pytest.raises(UserError, match="no readable label map"):
        decode.read_mat(mat(S=spread(0, 7))[: int(fraction * len(mat(S=spread(0, 7))))], "m.mat", "S")


@settings(max_examples=200, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_file_is_an_error_or_does_no_harm(where, flip):
    data = bytearray(WHOLE)
    data[int(where * len(data))] ^= flip
    try:
        decode.read_mat(bytes(data), "m.mat", "S")
    except UserError as error:
        assert "m.mat" in str(error)


def test_look_up():
    table = decode.label_table({0: 255, 2: 0, 5: 1})
    label = np.array([[0, 2], [5, 5]])
    classes = decode.look_up(label, table, "m")
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, [[255, 0], [1, 1]])
    assert decode.look_up(np.empty((0, 3), np.uint8), table, "m").shape == (0, 3)
    for wrong in (1, 6, 1000, -1):
        with pytest.raises(UserError, match=f"mask m holds the value {wrong}, which has no class"):
            decode.look_up(np.array([[0, wrong]]), table, "m")


def stored(pixels, format="PNG", **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tagged(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif.tobytes()


PHOTO = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize("tag", range(10))
def test_an_image_is_read_as_viewers_show_it(tag):
    data = stored(PHOTO, exif=tagged(tag))
    shown = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode.read_image(data, "x"), shown)
    assert decode.orientation(data) == (tag if 2 <= tag <= 8 else 1)
    assert (shown.shape[:2] == (6, 4)) == (tag in (5, 6, 7, 8))


def test_a_mask_is_turned_as_its_image_would_be():
    label = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert np.array_equal(decode.read_label(stored(label, exif=tagged(3)), "m"), label[::-1, ::-1])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_a_damaged_tag_turns_nothing():
    data = stored(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode.read_image(data, "x").shape == (4, 6, 3) and decode.orientation(data) == 1


def test_sixteen_bits_of_colour_are_refused():
    _, data = cv2.imencode(".png", PHOTO.astype(np.uint16) * 256)
    with pytest.raises(UserError, match="x has more than 8 bits per channel; convert it to 8 bits"):
        decode.read_image(data.tobytes(), "x")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_mask_of_fewer_bits_is_refused_as_its_values_would_be_multiplied(bits):
    rows = np.zeros((2, 1 + bits), np.uint8)  # a filter byte, and eight pixels
    header = struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts)
    with pytest.raises(UserError, match="x .* in one 8-bit channel, so save it as an 8-bit grey PNG"):
        decode.read_label(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), "x")


def test_palette_indices_of_four_bits_are_class_ids():
    image = Image.fromarray(np.array([[0, 1], [3, 15]], np.uint8), "P")
    image.putpalette(list(range(48)))
    assert decode.read_label(stored(image, bits=4), "x").tolist() == [[0, 1], [3, 15]]


def test_another_size_names_the_tag():
    image, label = np.zeros((6, 4, 3), np.uint8), np.zeros((4, 6), np.uint8)
    turned = decode.turned(stored(PHOTO, exif=tagged(6)))
    with pytest.raises(UserError, match=r"4x6 but the image is 6x4 \(height x width\) once turned by its orientation"):
        decode.check_pair(image, label, "m", 2, turned)
