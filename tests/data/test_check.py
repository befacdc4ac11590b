"""The look at every sample before anything trains: what it counts, what it stops on, and what it warns of."""

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from support.dataset_layouts import REAL, get, lines, pack, png

from bcd.config.schema.data import Archive, Dataset
from bcd.data import findings
from bcd.data.acquire import manifest
from bcd.data.acquire.obtain import checked, looked_at_by, obtain
from bcd.errors import UserError

TOP = "VOCdevkit/VOC2012"
SIZE = (8, 10)


def dataset(data_format, classes, **changes):
    """Two training images and one for validation, in an archive put in place by hand."""
    archives = [Archive(archive="toy/toy.zip", url=None)]
    fields = {"splits": {"train": 2, "val": 1}, "licence": "none", "source": "here", "archives": archives}
    return Dataset(format=data_format, classes=classes, **fields | changes)


def photo(height=SIZE[0], width=SIZE[1], tag=None, shade=90):
    exif, buffer = Image.Exif(), io.BytesIO()
    if tag:
        exif[0x0112] = tag
    Image.fromarray(np.full((height, width, 3), shade, np.uint8)).save(buffer, "PNG", exif=exif.tobytes())
    return buffer.getvalue()


def masks(*labels, photos=None):
    """An archive in VOC's layout: the first two images train, the third is val."""
    names = ["a", "b", "c"]
    files = {
        f"{TOP}/ImageSets/Segmentation/train.txt": lines(*names[:2]),
        f"{TOP}/ImageSets/Segmentation/val.txt": lines(*names[2:]),
    }
    for name, label, image in zip(names, labels, photos or [photo(shade=n) for n in range(3)], strict=True):
        files[f"{TOP}/JPEGImages/{name}.jpg"] = image
        files[f"{TOP}/SegmentationClass/{name}.png"] = label if isinstance(label, bytes) else png(label)
    return files


def plain(value, value_of_half=None):
    label = np.full(SIZE, value)
    label[:, 5:] = value if value_of_half is None else value_of_half
    return label


def objects(*annotations, split="train", images=(1, 2), size=SIZE):
    """An archive's part in COCO's layout."""
    document = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": size[0], "width": size[1]} for n in images],
        "categories": [{"id": 1, "name": "coin"}, {"id": 2, "name": "key"}],
        "annotations": [
            {"id": n, "image_id": images[0], "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0,
             "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]} | changes
            for n, changes in enumerate(annotations, 1)
        ],
    }  # fmt: skip
    files = {f"{split}2017/{n}.png": photo(*size, shade=n) for n in images}
    return files | {f"annotations/instances_{split}2017.json": json.dumps(document).encode()}


def fetched(root, files, params, **options):
    """What `bcd fetch toy` does once the archive is in place."""
    pack(root / "archives/toy.zip", files)
    return obtain("toy", params, root, mirror_dir=None, **options)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data/toy"


PONDS = dataset("voc", ["background", "pond"])
COINS = dataset("coco", ["coin", "key"])


def test_a_split_of_label_maps_is_counted(root):
    found = fetched(root, masks(plain(0, 1), plain(1, 255), plain(0)), PONDS).check["splits"]
    assert found["train"] == {
        "images": 2, "height": [8, 8], "width": [10, 10], "turned": 0,
        "labels": {"pixels": 160, "ignored": 40, "classes": {"background": [1, 40], "pond": [2, 80]}},
    }  # fmt: skip
    assert found["val"]["labels"]["classes"] == {"background": [1, 80], "pond": [0, 0]}


def test_a_split_of_objects_is_counted(root):
    of_train = ({}, {"area": 1024}, {"area": 9216}, {"area": 9217}, {"iscrowd": 1}, {"category_id": 2})
    files = objects(*of_train, size=(96, 97))
    found = fetched(root, files | objects(split="val", images=(3,)), COINS).check["splits"]
    assert found["train"]["objects"] == {
        "crowds": 1, "annotated": 1, "masks": "", "areas": 3, "boxes": 0,
        "classes": {"coin": [1, 2, 1], "key": [1, 0, 0]},
    }  # fmt: skip
    assert found["val"]["images"] == 1 and found["val"]["objects"]["annotated"] == 0


def warned(root, files, params, *arguments):
    return findings.warnings(fetched(root, files, params).check, *arguments)


def test_a_class_without_a_pixel_is_said(root):
    said = warned(root, masks(plain(0, 1), plain(1), plain(0)), PONDS)
    assert said == ["the class 'pond' has no pixel in the split 'val'"]


def test_images_that_are_trained_and_tested_on_are_said(root):
    """By their bytes, whatever they are called."""
    photos = [photo(), photo(shade=1), photo()]
    assert warned(root, masks(plain(0, 1), plain(1), plain(0, 1), photos=photos), PONDS) == [
        "1 of 1 images of the split 'val' are in 'train', too"
    ]


def test_a_split_that_is_ignored_is_said(root):
    val = plain(255, 1)
    val[0, -1] = 0
    files = masks(plain(255), plain(255), val)
    assert warned(root, files, PONDS, "semantic") == [
        "every pixel of the split 'train' is ignored",
        "50% of the pixels of the split 'val' are ignored",
    ]


def test_few_classes_are_named_and_more_are_counted(root):
    many = dataset("voc", [f"c{n}" for n in range(8)])
    said = warned(root, masks(plain(0, 1), plain(0), plain(0, 1)), many, None, ("val",))
    assert said == ["6 of 8 classes have no pixel in the split 'val' (c2, c3, c4, c5, c6, ...)"]


def test_crowds_missing_masks_and_classes_without_an_object_are_said(root):
    train = objects({}, {"iscrowd": 1, "segmentation": []})
    files = train | objects({"iscrowd": 1}, {"iscrowd": 1}, split="val", images=(3,))
    check_of = fetched(root, files, COINS).check
    crowds = "1 of 2 objects of the split 'train' are crowds, neither learnt nor evaluated"
    nothing = "the class 'key' has no object in the split 'train'"
    ignored = "all 2 objects of the split 'val' are crowds, which evaluation ignores"
    assert findings.warnings(check_of, "detection") == [crowds, nothing, ignored]
    assert "annotation 2 of the image train2017/1.png has no segmentation" in findings.warnings(check_of, "instance")[1]
    assert findings.warnings(check_of, "semantic") == []


def test_an_orientation_tag_is_said_and_followed(root):
    files = masks(plain(0, 1), plain(1), plain(0, 1), photos=[photo(tag=3), photo(10, 8, tag=6), photo()])
    said = warned(root, files, PONDS)
    assert said == ["2 images of the split 'train' have an orientation tag and are read turned by it"]


def refused(root, files, params, message):
    with pytest.raises(UserError, match=message) as caught:
        fetched(root, files, params)
    assert [path.name for path in root.iterdir() if path.name != ".lock"] == ["archives"]
    return str(caught.value)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (plain(0, 7), "holds the value 7, outside 0..1"),
        (np.zeros((10, 8)), r"is 10x8 but the image is 8x10"),
        (b"none", r"c\.png is not a readable image"),
        (png(plain(0, 1))[:-30], r"c\.png is not a readable image"),
    ],
)
def test_what_would_stop_an_evaluation_stops_the_fetch_and_keeps_the_archive(root, label, message):
    text = refused(root, masks(plain(0, 1), plain(1), label), PONDS, message)
    assert text.startswith("toy: ") and "then run `bcd fetch toy`" in text and "\n" not in text


def test_an_image_of_sixteen_bits_stops_the_fetch(root):
    _, deep = cv2.imencode(".png", np.zeros((*SIZE, 3), np.uint16))
    files = masks(*[plain(0, 1)] * 3, photos=[photo(), photo(), deep.tobytes()])
    refused(root, files, PONDS, "more than 8 bits per channel")


def test_many_faults_are_listed_and_counted(root):
    names = [f"n{n}" for n in range(13)]
    files = {f"{TOP}/ImageSets/Segmentation/{split}.txt": lines(*names) for split in ("train", "val")}
    for n, name in enumerate(names):
        files[f"{TOP}/JPEGImages/{name}.jpg"] = photo()
        files[f"{TOP}/SegmentationClass/{name}.png"] = png(plain(0, 1 if n == 3 else 9))
    text = refused(root, files, dataset("voc", ["a", "b"], splits={"train": 13, "val": 13}), "24 faults")
    assert "(10) mask" in text and "(11)" not in text and "n3.png" not in text and text.endswith("; and 14 more")


def test_binary_masks_stop_and_say_what_to_store(root):
    text = refused(root, masks(plain(0, 255), plain(255), plain(0)), PONDS, "every mask holds only 'background'")
    assert "store masks as class ids: 0 for 'background', 1 for 'pond', since 255 means: ignore" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [((0, 0), "holds only 'background', so no"), ((1, 1), "only 'pond', so no"), ((1, 255), "only 'pond' and ignored")],
)
def test_masks_of_one_class_stop_whichever_it_is(root, values, message):
    text = refused(root, masks(plain(*values), plain(values[0]), plain(values[0])), PONDS, message)
    assert "store masks as class ids: 0 for 'background', 1 for 'pond'" in text


def test_boxes_that_are_fractions_stop_and_say_how_to_make_pixels_of_them(root):
    shares = {"bbox": [0.1, 0.125, 0.4, 0.5], "area": 0.2}
    files = objects(shares, {"bbox": [0, 0, 1, 1]}) | objects({}, split="val", images=(3,))
    text = refused(root, files, COINS, r"instances_train2017\.json: all boxes lie within 0\.\.1, so they are fractions")
    assert "multiply the first and the third by the image's width" in text and "val2017" not in text
    one_pixel = objects({"bbox": [0, 0, 1, 1], "area": 1}) | objects({}, split="val", images=(3,))
    assert fetched(root, one_pixel, COINS).splits == {"train": 2, "val": 1}


def test_boxes_that_are_elsewhere_than_their_masks_are_said(root):
    by_its_centre = {"bbox": [3, 3, 4, 4]}
    check_of = fetched(
        root, objects({}, by_its_centre) | objects({"bbox": [1, 1, 4, 5]}, split="val", images=(3,)), COINS
    ).check
    (said,) = [one for one in findings.warnings(check_of, "detection") if "elsewhere" in one]
    assert said.startswith("1 of 2 objects of the split 'train' have a box elsewhere than their mask")


def test_areas_that_fit_neither_box_nor_mask_are_said(root):
    square = [[2, 2, 8, 2, 8, 8, 2, 8]]
    train = objects({"area": 18}, {"bbox": [2, 2, 6, 6], "area": 36, "segmentation": square},
                    {"bbox": [2, 2, 6, 6], "area": 4, "segmentation": square})  # fmt: skip
    check_of = fetched(root, train | objects({}, split="val", images=(3,)), COINS).check
    assert findings.warnings(check_of, "detection", ("train",))[0] == (
        "2 of 3 objects of the split 'train' have an `area` that does not fit their box or mask, so they may count as "
        "of a wrong size"
    )
    assert findings.warnings(check_of, "semantic") == []
    older = check_of | {"splits": {"train": {**check_of["splits"]["train"]}}}
    older["splits"]["train"]["objects"] = {k: v for k, v in older["splits"]["train"]["objects"].items() if k != "areas"}
    assert not any("area" in sentence for sentence in findings.warnings(older))


@pytest.mark.parametrize("box", [[5, 1, 4, 4], [1, 1, 4, 4]])
def test_height_and_width_exchanged_blame_the_list_of_images(root, box):
    """A box that fits the image as it is may be outside of what the file says, or inside of both."""
    files = objects({"bbox": box}) | objects({}, split="val", images=(3,))
    for split in ("train", "val"):
        name = f"annotations/instances_{split}2017.json"
        document = json.loads(files[name])
        for image in document["images"]:
            image["height"], image["width"] = image["width"], image["height"]
        files[name] = json.dumps(document).encode()
    text = refused(root, files, COINS, "2 faults")
    assert "instances_train2017.json: `images` has height and width exchanged: train2017/1.png is 8x10" in text
    assert "box" not in text and "get both anew" not in text


def test_a_train_split_of_crowds_stops(root):
    files = objects({"iscrowd": 1}, {"iscrowd": 1}) | objects({}, split="val", images=(3,))
    refused(root, files, COINS, "all 2 objects of the split 'train' are crowds")


def test_areas_of_all_splits_are_named_at_once(root):
    files = objects({"area": -4}, {}) | objects({"area": 0}, split="val", images=(3,))
    text = refused(root, files, COINS, "2 faults")
    assert "instances_train2017.json: the annotations 1 of image 1 have an area" in text
    assert "instances_val2017.json: the annotations 1 of image 3 have an area" in text


def test_one_class_is_enough_for_detection(root):
    coin = dataset("coco", ["coin"])
    found = fetched(root, objects({}) | objects({}, split="val", images=(3,)), coin)
    assert found.check["splits"]["train"]["objects"]["classes"] == {"coin": [1, 0, 0]}


def test_the_result_is_made_once_and_anew_for_other_classes(root):
    files, calls = masks(plain(0, 1), plain(1), plain(0)), []
    first = fetched(root, files, PONDS)
    again = obtain("toy", PONDS, root, mirror_dir=None, progress=lambda *call: calls.append(call))
    assert again == first and not calls
    payload = {path: path.stat().st_mtime_ns for path in root.rglob("*.png")}
    more = dataset("voc", ["background", "pond", "street"])
    found = obtain("toy", more, root, mirror_dir=None, progress=lambda *call: calls.append(call))
    assert calls == [("check toy", n, 3) for n in (1, 2, 3)]
    assert found.check["of"] == looked_at_by(more) and found.split_sha256 == first.split_sha256
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.png")} == payload


def test_an_older_manifest_gets_a_result_at_the_next_fetch(root):
    first = fetched(root, masks(plain(0, 1), plain(1), plain(0)), PONDS)
    fields = json.loads((root / "manifest.json").read_text())
    del fields["check"], fields["split_sha256"]
    (root / "manifest.json").write_text(json.dumps(fields))
    assert findings.warnings(manifest.load(root).check) == []
    assert obtain("toy", PONDS, root, mirror_dir=None).sha256 == first.sha256


def test_a_check_again_reads_every_file(root):
    found = fetched(root, masks(plain(0, 1), plain(1), plain(0)), PONDS)
    written = (root / "manifest.json").stat().st_mtime_ns
    assert checked("toy", PONDS, root) == found and (root / "manifest.json").stat().st_mtime_ns == written
    more = PONDS.model_copy(update={"splits": PONDS.splits | {"train": 9}})
    with pytest.raises(UserError, match=r"has the splits .* but params/datasets\.yaml says \{'train': 9"):
        checked("toy", more, root)
    (root / TOP / "SegmentationClass/c.png").write_bytes(png(plain(1)))
    with pytest.raises(UserError, match=r"c\.png differs from what files\.csv records"):
        checked("toy", PONDS, root)
    with pytest.raises(UserError, match=r"manifest\.json is missing; run `bcd fetch none`"):
        checked("none", PONDS, root.with_name("none"))


def test_the_table_has_every_split_and_class_in_the_order_of_the_params(root):
    rows = findings.table(fetched(root, masks(plain(0, 1), plain(1, 255), plain(0)), PONDS).check)
    assert [row.split("  ")[0] for row in rows[:3]] == ["", "images", "height"]
    assert rows[-2].split() == ["background", "1,", "25.00%", "1,", "100.00%"]
    assert rows[-1].split() == ["pond", "2,", "50.00%", "0,", "0.00%"]


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/mirror")
@pytest.mark.parametrize("name", ["ade20k", "cocostuff10k", "cocostuff164k"])
def test_samples_of_the_official_datasets_pass(tmp_path, name):
    found = get(name, tmp_path / name, REAL)
    assert all(one["images"] and not one["turned"] for one in found.check["splits"].values())
    assert all("have no pixel" in sentence for sentence in findings.warnings(found.check))
