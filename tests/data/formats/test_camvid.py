import io

import cv2
import numpy as np
import pytest
from PIL import Image

from bcd.data import decode, tree
from bcd.data.acquire import manifest
from bcd.data.formats import camvid
from bcd.errors import UserError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 16, 3), np.uint8)
FIELDS = {
    "dataset": "camvid",
    "origin": "generated",
    "official": False,
    "licence": "",
    "source": "",
    "request": {},
    "splits": {},
}


def encoded(array, format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    """A val split of the official size, its files empty."""
    root = tmp_path / "camvid"
    for folder in ("val", "valannot"):
        (root / "CamVid" / folder).mkdir(parents=True)
        for n in range(101):
            (root / "CamVid" / folder / f"{n:03d}.png").touch()
    return root


def list_val(root, lines):
    (root / "CamVid" / "val.txt").write_text("".join(f"{line}\n" for line in lines))
    manifest.write(root, FIELDS)
    return camvid.samples(tree.recorded(root), "val")


def lines(count=101):
    return [f"/SegNet/CamVid/val/{n:03d}.png /SegNet/CamVid/valannot/{n:03d}.png" for n in range(count)]


def test_samples_follow_the_list_file(root):
    samples = list_val(root, lines()[::-1])
    assert len(samples) == 101
    assert samples[0].name == "100"
    assert samples[0].image == "CamVid/val/100.png"
    assert samples[0].label == "CamVid/valannot/100.png"


def test_missing_mask_names_its_image(root):
    (root / "CamVid" / "valannot" / "007.png").unlink()
    with pytest.raises(UserError, match=r"image CamVid/val/007\.png has no mask CamVid/valannot/007\.png"):
        list_val(root, lines())


def test_missing_image(root):
    (root / "CamVid" / "val" / "007.png").unlink()
    with pytest.raises(UserError, match=r"image CamVid/val/007\.png is missing"):
        list_val(root, lines())


@pytest.mark.parametrize("count", [0, 100])
def test_unofficial_count(root, count):
    with pytest.raises(UserError, match=rf"val\.txt lists {count} images where camvid has 101"):
        list_val(root, lines(count))


def test_line_that_is_no_pair(root):
    with pytest.raises(UserError, match=r"val\.txt line 102 is not an image and a mask"):
        list_val(root, [*lines(), "/SegNet/CamVid/val/1.png"])


def test_altered_list_file_is_refused(root):
    list_val(root, lines())
    path = root / "CamVid" / "val.txt"
    path.write_text(path.read_text().replace("001", "002"))
    with pytest.raises(UserError, match=r"val\.txt differs"):
        camvid.samples(tree.recorded(root), "val")


def test_unfetched_dataset(tmp_path):
    with pytest.raises(UserError, match="run `bcd fetch camvid`"):
        tree.recorded(tmp_path / "camvid")


def test_archive_without_lists(tmp_path):
    with pytest.raises(UserError, match=r"has no CamVid/train\.txt"):
        camvid.samples(tree.listed_in(tmp_path, {}, "camvid"), "train")


def test_label_maps_void_to_ignore():
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = label.copy()
    expected[2, 3] = 255
    decoded = camvid.read_label(encoded(label), "m.png")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("value", [12, 255])
def test_label_above_void_is_refused(value):
    label = np.full((3, 4), value, np.uint8)
    with pytest.raises(UserError, match=rf"m\.png holds the value {value}"):
        camvid.read_label(encoded(label), "m.png")


def test_image_is_rgb_and_agrees_with_opencv():
    np.testing.assert_array_equal(decode.read_image(encoded(PIXELS), "x"), PIXELS)
    jpeg = encoded(PIXELS, "JPEG")
    reference = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    # Two JPEG decoders may round differently.
    difference = np.abs(decode.read_image(jpeg, "x").astype(int) - reference)
    assert difference.max() <= 3


def test_grey_and_palette_images_become_rgb():
    grey = PIXELS[:, :, 0]
    np.testing.assert_array_equal(decode.read_image(encoded(grey), "x"), np.dstack([grey] * 3))
    buffer = io.BytesIO()
    image = Image.fromarray(grey % 4)
    image.putpalette([10, 20, 30] * 256)
    image.save(buffer, "PNG")
    assert (decode.read_image(buffer.getvalue(), "x") == (10, 20, 30)).all()
    np.testing.assert_array_equal(decode.read_label(buffer.getvalue(), "x"), grey % 4)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("part", [0.05, 0.1, 0.5, 0.9])
def test_truncated_image_is_an_error(format, part):
    pixels = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(pixels, format)
    with pytest.raises(UserError, match=r"x\.jpg is not a readable image"):
        decode.read_image(data[: int(part * len(data))], "x.jpg")


def test_deep_image_and_coloured_mask_are_refused():
    with pytest.raises(UserError, match="more than 8 bits"):
        decode.read_image(encoded(np.zeros((4, 4), np.uint16)), "x")
    with pytest.raises(UserError, match="x is of mode 'RGB'; a mask must"):
        decode.read_label(encoded(PIXELS), "x")


def test_check_pair():
    label = np.array([[0, 10], [255, 3]], np.uint8)
    image = np.zeros((2, 2, 3), np.uint8)
    decode.check_pair(image, label, "x.png", 11)
    with pytest.raises(UserError, match=r"mask of x\.png holds the value 10, outside 0\.\.9"):
        decode.check_pair(image, label, "x.png", 10)
    with pytest.raises(UserError, match=r"mask of x\.png is 2x2 but the image is 2x3"):
        decode.check_pair(np.zeros((2, 3, 3), np.uint8), label, "x.png", 11)
