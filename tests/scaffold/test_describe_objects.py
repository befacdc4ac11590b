"""What is said of a folder of images with objects, as exporters write it."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from bcd.config.check import check
from bcd.config.schema.data import Dataset
from bcd.data.formats import reader_of
from bcd.data.tree import Tree
from bcd.errors import UserError
from bcd.scaffold.objects import annotated, describe, maskless

SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def photo():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def coco(names, segmentation=SQUARE, first=1, **more):
    images = [{"id": n, "file_name": name, "height": 6, "width": 8} for n, name in enumerate(names, first)]
    entry = {"category_id": 2, "bbox": [1, 1, 4, 4], "area": 16, "segmentation": segmentation, "iscrowd": 0, **more}
    things = [entry | {"id": image["id"], "image_id": image["id"]} for image in images]
    categories = [{"id": 1, "name": "birds"}, {"id": 2, "name": "duck"}]
    return json.dumps({"images": images, "categories": categories, "annotations": things}).encode()


def told(files):
    tree = Tree(sorted(files), files.__getitem__, "photos")
    assert annotated(tree)
    found = describe(tree, "photos", ())
    dataset = check(Dataset, found.entry, "photos")
    assert {split: len(reader_of(dataset).samples(tree, split)) for split in dataset.splits} == dataset.splits
    return found, not maskless(tree, found)


def pictures(*paths):
    return dict.fromkeys(paths, photo())


TEN = [f"{n}.png" for n in range(10)]


@pytest.mark.parametrize(
    ("files", "layout", "splits"),
    [
        # Roboflow
        ({f"{s}/_annotations.coco.json": coco(["a.png"]) for s in ("train", "valid", "test")}
         | pictures("train/a.png", "valid/a.png", "test/a.png"),
         {"images": "{split}", "annotations": "{split}/_annotations.coco.json", "folders": {"val": "valid"}},
         {"train": 1, "val": 1, "test": 1}),
        # COCO 2017
        ({f"annotations/instances_{s}2017.json": coco([f"{s}.png"]) for s in ("train", "val")}
         | {"annotations/person_keypoints_train2017.json": coco(["train.png"]), "annotations/captions.json": b"{}"}
         | pictures("train2017/train.png", "val2017/val.png"),
         {"images": "{split}2017", "annotations": "annotations/instances_{split}2017.json"}, {"train": 1, "val": 1}),
        # CVAT
        ({"annotations/instances_default.json": coco(TEN)} | pictures(*(f"images/default/{name}" for name in TEN)),
         {"images": "images/default", "annotations": "annotations/instances_default.json",
          "fractions": {"train": 0.6, "val": 0.2, "test": 0.2}}, {"train": 6, "val": 2, "test": 2}),
        # Label Studio
        ({"result.json": coco([f"..\\..\\media\\{name}" for name in TEN], first=0)}
         | pictures(*(f"images/{name}" for name in TEN)),
         {"images": "images", "annotations": "result.json", "fractions": {"train": 0.6, "val": 0.2, "test": 0.2}},
         {"train": 6, "val": 2, "test": 2}),
    ],
)  # fmt: skip
def test_the_layouts_of_exporters(files, layout, splits):
    found, masks = told(files)
    assert found.entry["coco"] == layout and found.entry["splits"] == splits
    assert found.entry["classes"] == ["duck"] and masks and found.objects == 1
    assert "categories that no object has are left out: birds" in found.notes


def test_labelme():
    shape = {"label": "duck", "points": [[1, 1], [5, 5]], "shape_type": "rectangle", "group_id": None}
    stated = {"version": "5.5.0", "imageHeight": 6, "imageWidth": 8, "shapes": [shape]}
    files = {f"p/{n}.json": json.dumps(stated | {"imagePath": f"{n}.png"}).encode() for n in range(10)}
    found, masks = told(files | pictures(*(f"p/{n}.png" for n in range(10)), "p/unlabelled.png"))
    assert found.entry["coco"] == {
        "images": "p",
        "annotations": "p/*.json",
        "fractions": {"train": 0.6, "val": 0.2, "test": 0.2},
    }
    assert masks and found.entry["classes"] == ["duck"]
    assert "left out, as no annotation file lists them: 1 image" in found.notes


def test_boxes_alone_and_painted_masks():
    assert not told({"a.json": coco(TEN, segmentation=[])} | pictures(*TEN))[1]
    found, _ = told({"a.json": coco(TEN, iscrowd=1)} | pictures(*TEN))
    assert found.entry["coco"]["crowds"] is False and any("habit of the tool" in note for note in found.notes)


def test_a_polygon_of_two_points_is_no_mask():
    document = json.loads(coco(TEN))
    document["annotations"][3]["segmentation"] = [[1, 1, 5, 5]]
    found, masks = told({"a.json": json.dumps(document).encode()} | pictures(*TEN))
    assert not masks and "10 objects, 9 of them with masks" in found.notes[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.json": coco(["a.png"])}, r"a\.json: none of its images is in the folder; put them there"),
        ({"a.json": coco(["a.png"]), "b.json": coco(["b.png"]), **pictures("a.png", "b.png")},
         r"a\.json, b\.json are several annotation files, whose names say no splits"),
        ({"train/_annotations.coco.json": coco(["a.png"])[:60], "valid/_annotations.coco.json": coco(["b.png"]),
          **pictures("train/a.png", "valid/b.png")},
         r"train/_annotations\.coco\.json is not valid JSON .*; get it anew, or take it out of the folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_described(files, message):
    with pytest.raises(UserError, match=message):
        told(files)
