"""What is said of a folder of images with masks."""

import io

import numpy as np
import pytest
from PIL import Image

from bcd.config.check import check
from bcd.config.schema.data import Dataset
from bcd.data.formats import reader_of
from bcd.data.tree import Tree
from bcd.errors import UserError
from bcd.scaffold.masks import describe

SIZE = (24, 32)
NOISE = np.random.default_rng(0)


def stored(pixels, form="PNG", palette=None):
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if palette:
        image.putpalette(palette)
    image.save(buffer, form)
    return buffer.getvalue()


def photo(form="JPEG", size=SIZE):
    return stored(NOISE.integers(0, 256, (*size, 3), np.uint8), form)


def mask(*values, palette=None):
    """Stripes of these values; of colours, if they are three numbers each."""
    rows = np.repeat(np.array(values, np.uint8), -(-SIZE[0] // len(values)), axis=0)[: SIZE[0]]
    return stored(np.repeat(rows[:, None], SIZE[1], axis=1), palette=palette)


def tree(files):
    return Tree(sorted(files), files.__getitem__, "photos")


def told(files, names=(), void=()):
    """The description, which the reader of the format agrees with."""
    found = describe(tree(files), "photos", names, void)
    dataset = check(Dataset, found.entry, "photos")
    assert {split: len(reader_of(dataset).samples(tree(files), split)) for split in dataset.splits} == dataset.splits
    return found


def pairs(count, image, label, values=(0, 255), **options):
    files = {image.format(n): photo() for n in range(count)}
    return files | {label.format(n): mask(*values, **options) for n in range(count)}


def where(found):
    return {key: found.entry["masks"].get(key) for key in ("images", "masks")}


def test_ten_photographs_with_binary_masks():
    found = told(pairs(10, "photos/p{}.jpg", "masks/p{}_mask.png"))
    assert where(found) == {"images": "photos", "masks": "masks/*_mask.png"}
    assert found.entry["splits"] == {"train": 6, "val": 2, "test": 2}
    assert found.entry["classes"] == ["background", "object"]
    assert found.entry["masks"]["values"] == {0: "background", 255: "object"}
    assert found.sizes.tolist() == [list(SIZE)] * 10
    assert any("binary masks: 0 is background, 255 the object" in note for note in found.notes)


def test_splits_by_folder_as_camvid_has_them():
    files = {}
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        files |= pairs(count, split + "/{}.png", split + "annot/{}.png", (0, 1, 2, 11))
    files |= {path: photo("PNG") for path in files if "annot" not in path}
    found = told(files, ["sky", "road", "tree"], ["11"])
    assert where(found) == {"images": "{split}", "masks": "{split}annot"}
    assert found.entry["splits"] == {"train": 3, "val": 1, "test": 2}
    assert found.entry["classes"] == ["sky", "road", "tree"] and found.entry["masks"]["void"] == ["11"]


@pytest.mark.parametrize(
    ("image", "label", "expected"),
    [
        ("{}.jpg", "{}_L.png", (".", "*_L.png")),
        ("a/{}.jpg", "a/{}.png", ("a/*.jpg", "a/*.png")),
        ("a/images/x/{}.jpg", "a/labels/x/{}.png", ("a/images", "a/labels")),
        ("a/{}.jpg", "b/{}.png", ("a", "b")),
    ],
)
def test_where_images_and_masks_may_be(image, label, expected):
    assert tuple(where(told(pairs(10, image, label))).values()) == expected


def test_other_words_for_splits_and_folders_in_them():
    files = pairs(3, "images/training/a/{}.jpg", "masks/training/a/{}.png")
    files |= pairs(2, "images/validation/b/{}.jpg", "masks/validation/b/{}.png")
    found = told(files)
    assert where(found) == {"images": "images/{split}", "masks": "masks/{split}"}
    assert found.entry["masks"]["folders"] == {"train": "training", "val": "validation"}


def test_lists_as_voc_has_them_and_the_masks_of_classes():
    files = pairs(4, "JPEGImages/{}.jpg", "SegmentationClass/{}.png", (0, 1, 255), palette=[0, 0, 0, 128, 0, 0] * 128)
    files |= {f"SegmentationObject/{n}.png": mask(0, 1, palette=[0, 0, 0, 9, 0, 0] * 128) for n in range(4)}
    files |= {"JPEGImages/9.jpg": photo(), "Sets/train.txt": b"0\n1\n2\n", "Sets/val.txt": b"3\n"}
    found = told(files)
    assert where(found) == {"images": "JPEGImages", "masks": "SegmentationClass"}
    assert found.entry["masks"]["lists"] == "Sets/{split}.txt" and found.entry["splits"] == {"train": 3, "val": 1}


LABELMAP = b"# label:color_rgb:parts:actions\nroad:128,64,128::\nsky:0,0,0::\nvoid:9,9,9::\n"
PALETTE = [10, 20, 30, 200, 0, 0] + [0] * 759 + [224, 224, 192]


@pytest.mark.parametrize(
    ("values", "options", "extra", "classes", "meaning"),
    [
        ((0, 1, 2, 255), {}, {}, ["class-0", "class-1", "class-2"], {}),
        ((0, 1, 255), {}, {}, ["background", "object"], {}),
        ((0, 7, 8), {}, {}, ["class-0", "class-7", "class-8"], {"values": {0: "class-0", 7: "class-7", 8: "class-8"}}),
        ((0, 100, 200, 255), {}, {}, ["class-0", "class-100", "class-200", "class-255"],
         {"values": {0: "class-0", 100: "class-100", 200: "class-200", 255: "class-255"}}),
        ((0, 1, 2, 3), {}, {"codes.txt": b"sky\nroad\nVoid\ncar\n"}, ["sky", "road", "car"],
         {"values": {0: "sky", 1: "road", 3: "car"}, "void": [2]}),
        ((0, 255), {"palette": PALETTE}, {}, ["background", "object"],
         {"values": {"10 20 30": "background", "224 224 192": "object"}}),
        ((0, 1, 255), {"palette": PALETTE}, {}, ["background", "object"],
         {"values": {"10 20 30": "background", "200 0 0": "object"}, "void": ["224 224 192"]}),
        (((0, 0, 0), (128, 64, 128), (9, 9, 9)), {}, {"labelmap.txt": LABELMAP},
         ["road", "sky"], {"values": {"0 0 0": "sky", "128 64 128": "road"}, "void": ["9 9 9"]}),
        (((0, 0, 0), (128, 64, 128)), {}, {"class_dict.csv": b"name,r,g,b\nSky,0,0,0\nRoad, 128, 64, 128\n"},
         ["Sky", "Road"], {"values": {"0 0 0": "Sky", "128 64 128": "Road"}}),
        (((0, 0, 0), (128, 64, 128)), {}, {"label_colors.txt": b"0 0 0\tVoid\n128 64 128\tRoad\n"},
         ["Road"], {"values": {"128 64 128": "Road"}, "void": ["0 0 0"]}),
    ],
)  # fmt: skip
def test_what_masks_mean(values, options, extra, classes, meaning):
    found = told(pairs(10, "a/{}.jpg", "b/{}.png", values, **options) | extra)
    assert found.entry["classes"] == classes
    assert {key: found.entry["masks"][key] for key in ("values", "void") if key in found.entry["masks"]} == meaning


@pytest.mark.parametrize(
    ("files", "names", "void", "message"),
    [
        ({"a/1.jpg": photo()}, [], [], "photos holds 1 image and no masks: images of few colours"),
        ({"a.txt": b""}, [], [], "photos holds no images; add them, or docs"),
        ({"a/1.png": mask(0, 1)}, [], [], "photos holds 1 image and no photographs; add them, or docs"),
        ({"a/1.jpg": photo(), "b/2.png": mask(0, 1)}, [], [], r"no mask is called as an image, such as 1\.png or 1_"),
        (pairs(9, "a/{}.jpg", "b/{}.png") | {"a/x.jpg": photo()}, [], [], r"image a/x\.jpg has no mask b/x\.png; add"),
        (pairs(10, "a/{}.jpg", "b/{}.png"), ["sky"], [], r"--classes has 1 names, and masks hold 2 values \(0, 255\)"),
        (pairs(9, "a/{}.jpg", "b/{}.png") | {"a/x.jpg": photo(size=(48, 64)), "b/x.png": mask(0, 255)}, [], [],
         r"mask b/x\.png has 32 x 24 pixels, but the image a/x\.jpg has 64 x 48; save it in the size of its image"),
        (pairs(10, "a/{}.jpg", "b/{}.png"), [], ["7"], "--void 7: no mask holds it; they hold 0, 255"),
        (pairs(2, "red/{}.jpg", "red/{}.png") | pairs(2, "blue/{}.jpg", "blue/{}.png"), [], [],
         "images are in (red|blue), (red|blue), whose names say no splits such as train and val"),
    ],
)  # fmt: skip
def test_what_cannot_be_described(files, names, void, message):
    with pytest.raises(UserError, match=message):
        told(files, names, void)
