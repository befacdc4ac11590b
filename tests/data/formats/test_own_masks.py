"""Own images with masks, as an entry describes them: which images a split has, what masks mean, and what is refused."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.dataset_layouts import pack, photo, png
from support.project import ROOT, SHARED

from bcd.config.check import check
from bcd.config.schema.data import Archive, Dataset, DataUse
from bcd.data.acquire import manifest
from bcd.data.acquire.obtain import accepted, obtain, verified
from bcd.data.formats._described import shares
from bcd.data.semantic.split import open_split
from bcd.errors import UserError

REAL = Path(os.environ.get("BCD_MIRROR", SHARED / "mirror"))
SIZE = (6, 8)
BINARY = {"0": "background", "255": "object"}
LAYOUT = {"images": "photos", "masks": "masks/*_mask.png", "fractions": {"train": 0.6, "val": 0.2, "test": 0.2}}
SPLITS = {"train": 6, "val": 2, "test": 2}


def own(folder="own", splits=SPLITS, classes=("background", "object"), archives=(), **layout):
    """A dataset of these masks, as its entry is read."""
    place = {"archives": [{"archive": name, "url": None} for name in archives]} if archives else {"folder": str(folder)}
    fields = {"format": "masks", "classes": list(classes), "splits": splits, "licence": "mine", "source": "my camera"}
    return check(Dataset, {**fields, **place, "masks": layout}, "datasets.yaml: mine")


def half(value, other=0):
    label = np.full(SIZE, other, np.uint8)
    label[:3] = value
    return label


def coloured(label, colours):
    return np.array(colours, np.uint8)[label]


def encoded(array, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def picture(number, form):
    return encoded(np.full((*SIZE, 3), 20 * number, np.uint8), form)


def ten(value=255):
    """Ten images, JPEG and PNG by turns, with binary masks."""
    found = {f"masks/{n:02d}_mask.png": png(half(value)) for n in range(10)}
    for n in range(10):
        found[f"photos/{n:02d}.{'png' if n % 2 else 'JPG'}"] = picture(n, "PNG" if n % 2 else "JPEG")
    return found


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "own", ten())


def get(dataset, root, **options):
    return obtain("mine", dataset, root, mirror_dir=None, **options)


def names(root, dataset, split):
    return [sample.name for sample in open_split(root, dataset.use("semantic"), split).samples]


def test_ten_own_images_with_binary_masks(folder, tmp_path):
    dataset, root = own(folder, **LAYOUT, values=BINARY), tmp_path / "data/mine"
    found = get(dataset, root)
    assert (found.splits, found.origin, found.official) == (SPLITS, "local", False)
    assert found.files.keys() == ten().keys() and str(tmp_path) not in (root / "manifest.json").read_text()
    assert found.check["splits"]["train"]["labels"]["classes"] == {"background": [6, 144], "object": [6, 144]}
    listed = {split: names(root, dataset, split) for split in SPLITS}
    assert sorted(sum(listed.values(), [])) == [f"{n:02d}" for n in range(10)]
    assert listed == shares([f"{n:02d}" for n in range(10)], LAYOUT["fractions"], 0)
    image, label, _ = open_split(root, dataset.use("semantic"), "train").read(0)
    assert image.shape == (*SIZE, 3)
    np.testing.assert_array_equal(label, half(1))
    assert get(dataset, root) == found and verified("mine", dataset, root) == found


def test_shares_are_a_matter_of_names_and_seed():
    fractions = {"val": 0.3, "train": 0.7}
    first = shares("abcdefghij", fractions, 0)
    assert first == shares("jihgfedcba", dict(reversed(fractions.items())), 0)
    assert first == {"train": list("bcefgij"), "val": list("adh")}  # pinned: another order is another benchmark
    assert {len(shares("abcdefghij", fractions, seed)["val"]) for seed in range(20)} == {3}
    assert len({tuple(shares("abcdefghij", fractions, seed)["val"]) for seed in range(20)}) > 10


def test_a_changed_folder_is_copied_again_and_an_absent_one_is_not_missed(folder, tmp_path):
    dataset, root = own(folder, **LAYOUT, values=BINARY), tmp_path / "data/mine"
    before = get(dataset, root)
    (folder / "masks/00_mask.png").write_bytes(png(half(255)[::-1].copy()))
    with pytest.raises(UserError, match="own does not hold the files that were copied; run `bcd fetch mine`"):
        verified("mine", dataset, root)
    assert before.read("masks/00_mask.png") == png(half(255)), "a copy, so nothing is trained on that was not recorded"
    after = get(dataset, root)
    assert after.read("masks/00_mask.png") != png(half(255)) and after.split_sha256 != before.split_sha256
    folder.rename(tmp_path / "elsewhere")
    assert get(dataset, root) == after and verified("mine", dataset, root) == after
    assert get(own(tmp_path / "elsewhere", **LAYOUT, values=BINARY), root) == after
    with pytest.raises(UserError, match="own is no folder; correct `folder` in params/datasets.yaml"):
        get(dataset, tmp_path / "data/other")


def test_what_is_mended_in_the_copy_is_taken_over(folder, tmp_path):
    dataset, root = own(folder, **LAYOUT, values=BINARY), tmp_path / "data/mine"
    get(dataset, root)
    (root / "masks/03_mask.png").write_bytes(png(half(255, 255)))
    after = accepted("mine", dataset, root)
    assert "changed by hand" in after.note
    assert get(dataset, root) == after == manifest.load(root)
    with pytest.raises(UserError, match="lie in one another; move your files elsewhere"):
        get(own(root, **LAYOUT, values=BINARY), root)


def test_another_meaning_of_the_values_is_another_look_and_another_run(folder, tmp_path):
    root = tmp_path / "data/mine"
    first, second = (own(folder, **LAYOUT, values=values) for values in (BINARY, {"255": "background", "0": "object"}))
    before = get(first, root)
    after = get(second, root)
    assert after.files == before.files and after.split_sha256 == before.split_sha256
    assert after.check["of"] != before.check["of"]
    use = first.use("semantic")
    assert use != second.use("semantic") and "folder" not in use.model_dump()
    assert DataUse.model_validate(json.loads(json.dumps(use.model_dump()))) == use


def test_splits_by_list(folder, tmp_path):
    write(
        folder, {"lists/train.txt": b"\xef\xbb\xbf03\n01\n\n", "lists/val.txt": b"02\r\n", "photos/my cat.png": photo()}
    )
    dataset = own(
        folder,
        {"train": 2, "val": 1},
        images="photos",
        masks="masks/*_mask.png",
        lists="lists/{split}.txt",
        values=BINARY,
    )
    found = get(dataset, tmp_path / "mine")
    assert names(tmp_path / "mine", dataset, "train") == ["03", "01"]
    assert len(found.files) == 2 + 2 * 3, "only what is used is copied"
    for text, message in {
        b"03\n11\n": r"the list lists/train\.txt has '11', and no image at photos is called so; write names without",
        b"03.png\n": r"has '03\.png', and no image at photos is called so; write names without folder and suffix",
        b"03\n03\n": r"the list lists/train\.txt has '03' twice; take one of them out",
        b"\xff\xfe\n": r"the list lists/train\.txt is not UTF-8 text; save it as UTF-8",
        b"my cat\n": r"no mask is at masks/\*_mask\.png for the image photos/my cat\.png of the split 'train'; add",
        b"\n": r"the list lists/train\.txt has no names, so the split 'train' is empty; write one a line",
    }.items():
        (folder / "lists/train.txt").write_bytes(text)
        with pytest.raises(UserError, match=message):
            get(dataset, tmp_path / "mine")
    (folder / "lists/train.txt").unlink()
    with pytest.raises(UserError, match=r"there is no list lists/train\.txt; put it there, or correct masks\.lists"):
        get(dataset, tmp_path / "mine")


def test_splits_by_folder_with_names_of_their_own_and_masks_beside_their_images(tmp_path):
    files = {}
    for split, number in (("training", 2), ("validation", 1)):
        for n in range(number):
            files[f"{split}/town/{n}.png"] = photo("PNG")
            files[f"{split}/town/{n}_labelIds.png"] = png(half(1))
            files[f"{split}/town/._{n}.png"] = b"of a Mac"
    folders = {"train": "training", "val": "validation"}
    layout = {"images": "{split}/*.png", "masks": "{split}/*_labelIds.png", "folders": folders}
    pack(tmp_path / "mine/archives/mine.zip", files)
    dataset = own(splits={"train": 2, "val": 1}, archives=["mine/mine.zip"], **layout)
    assert get(dataset, tmp_path / "mine").splits == {"train": 2, "val": 1}
    assert names(tmp_path / "mine", dataset, "train") == ["0", "1"]
    # Another split is looked for at once, though the archive is the same.
    with pytest.raises(UserError, match=r"no image of the split 'test' is at test/\*\.png; correct masks\.images"):
        get(own(splits={"train": 2, "val": 1, "test": 1}, archives=["mine/mine.zip"], **layout), tmp_path / "mine")
    folder = write(tmp_path / "own", {"a/1.png": photo(), "b/1.png": photo(), "m/1.png": png(half(1))})
    with pytest.raises(UserError, match=r"the mask m/1\.png belongs to images of several splits; give each a mask"):
        get(own(folder, {"train": 1, "val": 1}, images="{split}", masks="m", folders={"train": "a", "val": "b"}),
            tmp_path / "other")  # fmt: skip


RGB = {"0 0 0": "background", "128 64 128": "object", "255 0 0": "object"}


@pytest.mark.parametrize(
    ("stored", "layout", "expected"),
    [
        (encoded(np.array([[0, 1, 255]], np.uint8)), {}, [0, 1, 255]),
        (encoded(np.array([[0, 1, 7]], np.uint8)), {"void": [7]}, [0, 1, 255]),
        (encoded(np.array([[0, 1, 2, 255]], np.uint8)), {"reduce_zero_label": True}, [255, 0, 1, 255]),
        (encoded(np.array([[0, 128, 255]], np.uint8)), {"values": BINARY, "void": [128]}, [0, 255, 1]),
        (encoded(np.array([[5, 9]], np.uint8)), {"values": {5: "object", 9: "background"}}, [1, 0]),
        (png(np.array([[0, 1, 1]]), palette=True), {"values": {0: "object", 1: "background"}}, [1, 0, 0]),
        (encoded(np.array([[[0, 0, 0], [128, 64, 128], [255, 0, 0], [1, 2, 3]]], np.uint8)),
         {"values": RGB, "void": ["1 2 3"]}, [0, 1, 1, 255]),
        (png(np.array([[0, 255]]), palette=True), {"values": {"0 1 2": "object", "253 254 255": "background"}}, None),
        (encoded(np.array([[0, 255]], np.uint8)), {"values": {"0 0 0": "background", "255 255 255": "object"}}, [0, 1]),
    ],
)  # fmt: skip
def test_what_masks_mean(stored, layout, expected):
    from bcd.data.formats.masks import reader

    found = reader(own(images="photos", masks="masks", fractions=LAYOUT["fractions"], **layout))
    if expected is None:  # a palette image read as colours: grey ones, by the palette that `png` writes
        buffer = io.BytesIO()
        image = Image.fromarray(np.array([[0, 1]], np.uint8))
        image.putpalette([0, 1, 2, 253, 254, 255])
        image.save(buffer, "PNG")
        stored, expected = buffer.getvalue(), [1, 0]
    label = found.read_label(stored, "m.png")
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, [expected])


def test_one_class(folder, tmp_path):
    dataset = own(folder, classes=["object"], **LAYOUT, values={255: "object"}, void=[0])
    found = get(dataset, tmp_path / "mine")
    labels = found.check["splits"]["train"]["labels"]
    assert labels == {"pixels": 288, "ignored": 144, "classes": {"object": [6, 144]}}


SIXTEEN = encoded(np.zeros(SIZE, np.uint16))
COLOURS = {"values": {"0 0 0": "background", "255 255 255": "object"}}


@pytest.mark.parametrize(
    ("files", "layout", "message"),
    [
        ({"masks/03_mask.png": png(np.zeros((6, 9)))}, {},
         r"mask of masks/03_mask\.png is 6x9 but the image is 6x8 .*give it a mask of its size; then run "
         "`bcd fetch mine`, after mending the folder"),
        ({"masks/03_mask.png": png(half(7))}, {},
         r"mask masks/03_mask\.png holds the value 7, which has no class; give it one in masks\.values of"),
        ({"masks/03_mask.png": encoded(np.full((*SIZE, 3), 9, np.uint8))}, COLOURS,
         r"mask masks/03_mask\.png holds the colour 9 9 9, which has no class; give it one in masks\.values"),
        ({"masks/03_mask.png": SIXTEEN}, {}, r"03_mask\.png is of mode 'I;16'; a mask must hold class ids in one 8-b"),
        ({"masks/03_mask.png": SIXTEEN}, COLOURS, r"03_mask\.png is of mode 'I;16'; a mask of colours must be 8-bit"),
        ({"masks/03_mask.png": encoded(np.zeros((*SIZE, 4), np.uint8))}, {}, r"03_mask\.png is of mode 'RGBA'; a mask"),
        ({"masks/03_mask.png": encoded(np.zeros((*SIZE, 4), np.uint8))}, COLOURS,
         r"masks/03_mask\.png is of mode 'RGBA'; a mask of colours must be 8-bit RGB, so save it as that"),
        ({"masks/03_mask.png": None}, {},
         r"no mask is at masks/\*_mask\.png for the image photos/03\.png of the split '\w+'; add masks, take"),
        ({"photos/03.png": None}, {},
         r"no image is at photos for the mask masks/03_mask\.png; add images, take such masks away, or correct"),
        ({"photos/03.jpg": photo()}, {}, r"photos/03\.jpg and photos/03\.png have one name, '03'; take one away"),
        ({}, {"images": "photo/*.jpg"}, r"no image of the split 'train' is at photo/\*\.jpg; correct masks\.images"),
        ({}, {"fractions": {"train": 0.95, "val": 0.04, "test": 0.01}},
         r"the split 'val' gets none of 10 images; raise its share in masks\.fractions of params/datasets\.yaml"),
        ({}, {"fractions": {"train": 0.5, "val": 0.3, "test": 0.2}},
         r"has the splits .*'train': 5, .* says .*'train': 6, .*or correct `splits`"),
        ({}, {"values": {}},
         r"every mask holds only 'background' and ignored pixels, .*say in masks\.values of params/datasets\.yaml"),
    ],
)  # fmt: skip
def test_what_stops_before_training(folder, tmp_path, files, layout, message):
    for name, data in files.items():
        (folder / name).unlink() if data is None else (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        get(own(folder, **{**LAYOUT, "values": BINARY, **layout}), tmp_path / "data/mine")
    assert not (tmp_path / "data/mine/manifest.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "*/*.jpg"}, r"masks\.images: '\*/\*\.jpg' is no pattern; write a folder, or a path with one \*"),
        ({"images": "../photos"}, r"masks\.images: '\.\./photos' leaves its folder"),
        ({"images": "{name}/x"}, r"masks\.images: '{name}/x' is no pattern"),
        ({"images": "{split}/*.jpg"}, "split by {split} in images, by lists or by fractions; say one of these"),
        ({"fractions": {}}, "split by {split} in images, by lists or by fractions; say one of these"),
        ({"masks": "{split}/masks"}, "masks has {split}, and images has not"),
        ({"masks": "photos"}, "images and masks are both 'photos'; write where the masks are"),
        ({"fractions": {}, "lists": "train.txt"}, r"lists is 'train\.txt'; write {split} where"),
        ({"fractions": {"train": 0.6, "val": 0.3}}, r"fractions add up to 0\.9; make it 1"),
        (
            {"fractions": {"train": 0.6, "val": 0.4}},
            r"masks\.fractions has train, val, and splits has test, train, val",
        ),
        ({"folders": {"train": "a"}}, "folders says what {split} stands for, which images has not"),
        (
            {"values": {0: "background", 256: "object"}},
            r"256 is no value of a mask; write a number 0\.\.255, or a colour",
        ),
        ({"values": {"#ff0000": "object"}}, "'#ff0000' is no value of a mask"),
        ({"values": {0: "background", "1 2 3": "object"}}, "values and void hold numbers and colours"),
        ({"values": {0: "background", 255: "objekt"}}, r"masks\.values has the class 'objekt', which classes has not"),
        ({"values": {0: "background"}}, r"masks\.values has no value for the class 'object'; add it"),
        ({"values": BINARY, "void": [255]}, "values has a class for 255, and void has it, too"),
        ({"values": BINARY, "reduce_zero_label": True}, "values and reduce_zero_label both say what a mask holds"),
        ({"value": BINARY}, r"masks\.value: unknown key; did you mean 'values'"),
    ],
)
def test_an_entry_that_cannot_be_meant(changes, message):
    with pytest.raises(UserError, match=f"^datasets.yaml: mine: .*{message}"):
        own(**{**LAYOUT, **changes})


def test_a_folder_is_the_only_source():
    with pytest.raises(ValueError, match="folder is a path, and the only place that the files come from"):
        Dataset(format="voc", classes=["a"], splits={"train": 1}, licence="", source="", folder="own",
                archives=[Archive(archive="a.zip", url=None)])  # fmt: skip


def test_a_folder_may_hold_another_format_and_links_in_a_circle(tmp_path):
    top = "VOCdevkit/VOC2012"
    files = {f"{top}/JPEGImages/a.jpg": photo(), f"{top}/SegmentationClass/a.png": png(half(1)), ".hidden/x": b""}
    lists = {f"{top}/ImageSets/Segmentation/{split}.txt": b"a\n" for split in ("train", "val")}
    folder = write(tmp_path / "own", files | lists)
    (folder / "VOCdevkit/again").symlink_to(folder)
    (tmp_path / "link").symlink_to(folder)
    dataset = Dataset(format="voc", classes=["a", "b"], splits={"train": 1, "val": 1}, licence="", source="",
                      folder=str(tmp_path / "link"))  # fmt: skip
    assert get(dataset, tmp_path / "mine").files.keys() == (files | lists).keys() - {".hidden/x"}


CAMVID = REAL / "camvid" / "CamVid.zip"


@pytest.mark.skipif(not CAMVID.exists(), reason="the archive of CamVid (../shared/mirror, or BCD_MIRROR) is not here")
def test_camvid_needs_no_module(tmp_path):
    """The real archive, described in the place of its format's module: the same images, equal labels."""
    from bcd.config.load import load_params

    real = load_params(ROOT / "params").datasets["camvid"]
    layout = {"images": "CamVid/{split}/*.jpg", "masks": "CamVid/{split}annot/*.png", "void": [11]}
    fields = real.model_dump(exclude={"format", "files"}) | {"format": "masks", "masks": layout}
    dataset = check(Dataset, fields, "camvid")
    found = obtain("camvid", dataset, tmp_path / "camvid", mirror_dir=REAL)
    assert found.splits == {"train": 367, "val": 101, "test": 233}
    ours, theirs = (
        open_split(tmp_path / "camvid", use, "val") for use in (dataset.use("semantic"), real.use("semantic"))
    )
    assert {one.image: one.label for one in ours.samples} == {one.image: one.label for one in theirs.samples}
    place = [sample.image for sample in theirs.samples].index(ours.samples[5].image)
    np.testing.assert_array_equal(ours.read(5)[1], theirs.read(place)[1])
    assert re.search(r"\.jpg$", ours.samples[5].image) and (ours.read(5)[1] == 255).any()
