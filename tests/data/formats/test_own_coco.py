"""Own images with objects, as an entry describes them: the dialects of exporters, splits, and what is refused."""

import base64
import json

import numpy as np
import pytest
from support.dataset_layouts import pack, photo, png

from bcd.config.check import check
from bcd.config.schema.data import Dataset, DataUse
from bcd.data import findings
from bcd.data.acquire.obtain import obtain
from bcd.data.formats._described import shares
from bcd.data.objects.masks import mask
from bcd.data.objects.split import open_objects
from bcd.errors import UserError

HEIGHT, WIDTH = 6, 8  # of `photo`
SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]
CODE = {"size": [HEIGHT, WIDTH], "counts": [7, 4, 2, 4, 2, 4, 2, 4, 19]}
FIELDS = {"format": "coco", "classes": ["duck", "swan"], "licence": "mine", "source": "my camera"}
LAYOUT = {"images": "images", "annotations": "{split}.json"}
GREY = np.full((HEIGHT, WIDTH), 90, np.uint8)


def own(folder, splits, classes=("duck", "swan"), **layout):
    """A dataset of these objects, as its entry is read."""
    fields = FIELDS | {"classes": list(classes), "splits": splits, "folder": str(folder), "coco": layout}
    return check(Dataset, fields, "datasets.yaml: mine")


def image(number, name, **more):
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH, **more}


def thing(number, of, category=1, segmentation=SQUARE, **more):
    entry = {"id": number, "image_id": of, "category_id": category, "bbox": [1, 1, 4, 4], "area": 16.0}
    return entry | {"segmentation": segmentation, "iscrowd": 0, **more}


def document(images, things, categories=((1, "duck"), (2, "swan"))):
    listed = [{"id": number, "name": name, "supercategory": ""} for number, name in categories]
    return json.dumps({"images": images, "categories": listed, "annotations": things}).encode()


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def get(dataset, root):
    return obtain("mine", dataset, root, mirror_dir=None)


def opened(dataset, root, split="train", task="instance"):
    get(dataset, root)
    return open_objects(root, dataset.use(task), split, masks=task == "instance")


def test_roboflow_has_an_unused_category_0_and_a_json_in_each_folder(tmp_path):
    categories = ((0, "birds"), (1, "duck"), (2, "swan"))
    text = document([image(0, "a.rf.1.jpg", license=1)], [thing(0, 0, 2)], categories)
    folder = write(
        tmp_path / "own",
        {f"{split}/_annotations.coco.json": text for split in ("train", "valid")}
        | {"train/a.rf.1.jpg": photo(), "valid/a.rf.1.jpg": photo("PNG"), "README.roboflow.txt": b""},
    )
    layout = {"images": "{split}", "annotations": "{split}/_annotations.coco.json", "folders": {"val": "valid"}}
    dataset, root = own(folder, {"train": 1, "val": 1}, **layout), tmp_path / "data/mine"
    found = get(dataset, root)
    assert set(found.files) == {
        f"{s}/{f}" for s in ("train", "valid") for f in ("a.rf.1.jpg", "_annotations.coco.json")
    }
    assert found.check["splits"]["val"]["objects"]["classes"] == {"duck": [0, 0, 0], "swan": [1, 0, 0]}
    _, objects, name = open_objects(root, dataset.use("instance"), "val", masks=True).read(0)
    assert name == "valid/a.rf.1.jpg" and objects.classes.tolist() == [1]
    assert objects.segmentation == [SQUARE]
    assert get(dataset, root) == found
    assert DataUse.model_validate(json.loads(dataset.use("instance").model_dump_json())) == dataset.use("instance")


def test_cvat_leaves_folders_out_and_has_attributes(tmp_path):
    things = [thing(1, 1, attributes={"occluded": False}), thing(2, 2, iscrowd=1, segmentation=CODE)]
    files = {
        "annotations/instances_default.json": document([image(1, "a.jpg"), image(2, "pond/b.jpg")], things),
        "images/default/a.jpg": photo(), "images/default/pond/b.jpg": photo("PNG"),
    }  # fmt: skip
    layout = {"images": "images", "annotations": "annotations/instances_default.json"}
    folder = write(tmp_path / "own", files | {"lists/train.txt": b"default/pond/b\n", "lists/val.txt": b"default/a\n"})
    dataset = own(folder, {"train": 1, "val": 1}, **layout, lists="lists/{split}.txt", crowds=False)
    found = opened(dataset, tmp_path / "mine")
    _, objects, name = found.read(0)
    assert name == "images/default/pond/b.jpg" and objects.crowd.tolist() == [False]
    assert np.array_equal(mask(CODE, HEIGHT, WIDTH), mask(SQUARE, HEIGHT, WIDTH))
    with pytest.raises(UserError, match=r"all 1 objects of the split 'train' are crowds .*set iscrowd to 0"):
        get(own(folder, {"train": 1, "val": 1}, **layout, lists="lists/{split}.txt"), tmp_path / "crowds")


@pytest.mark.parametrize(
    "prefix", ["images\\", "..\\..\\label-studio\\media\\upload\\4\\", "images/", "/data/upload/1/"]
)
def test_label_studio_counts_from_0_and_writes_its_own_folders(tmp_path, prefix):
    names = [f"{number}f-x{number}.jpg" for number in range(10)]
    images = [image(number, prefix + name) for number, name in enumerate(names)]
    things = [thing(number, number, number % 2, ignore=0) for number in range(9)]  # the last has none
    files = {f"images/{name}": photo("PNG") + name.encode() for name in names}
    text = document(images, things, ((0, "duck"), (1, "swan")))
    fractions = {"train": 0.6, "val": 0.2, "test": 0.2}
    layout = {"images": "images", "annotations": "result.json", "fractions": fractions, "seed": 1}
    dataset = own(write(tmp_path / "own", files | {"result.json": text}), {"train": 6, "val": 2, "test": 2}, **layout)
    found = get(dataset, tmp_path / "mine")
    assert found.splits == {"train": 6, "val": 2, "test": 2} and len(found.files) == 11
    expected = shares([name.removesuffix(".jpg") for name in names], fractions, 1)
    for split, listed in expected.items():
        part = open_objects(tmp_path / "mine", dataset.use("detection"), split, masks=False)
        read = [part.read(index) for index in range(len(part))]
        assert [name for *_, name in read] == [f"images/{name}.jpg" for name in listed]
        assert [o.classes.tolist() for _, o, _ in read] == [[int(n[0]) % 2] if n[0] != "9" else [] for n in listed]


SHAPES = {
    "polygon": [[1, 1], [5, 1], [5, 5], [1, 5]],
    "rectangle": [[5, 5], [1, 1]],
}


def shape(kind, points, label="duck", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme(path, *shapes):
    stated = {"version": "5.5.0", "imagePath": path, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return json.dumps(stated | {"imageData": base64.b64encode(photo()).decode(), "shapes": list(shapes)}).encode()


def labelled(tmp_path, *shapes, classes=("duck", "swan"), path="a.jpg"):
    files = {
        "p/a.jpg": photo(),
        "p/a.json": labelme(path, *shapes),
        "p/b.jpg": photo("PNG"),
        "p/unlabelled.jpg": photo(),
    }
    files["p/b.json"] = labelme("..\\p\\b.jpg", shape("rectangle", SHAPES["rectangle"], "swan"))
    folder = write(tmp_path / "own", files)
    layout = {"images": "p", "annotations": "p/*.json", "lists": "{split}.txt"}
    write(folder, {"train.txt": b"a\n", "val.txt": b"b\n"})
    return own(folder, {"train": 1, "val": 1}, classes, **layout)


def test_labelme_polygons_rectangles_and_masks(tmp_path):
    painted = base64.b64encode(png(np.full((5, 5), 255))).decode()
    shapes = [shape(kind, points) for kind, points in SHAPES.items()]
    shapes.append(shape("mask", [[1, 0], [6, 5]], "swan", mask=painted))
    dataset = labelled(tmp_path, *shapes)
    part = opened(dataset, tmp_path / "mine")
    _, objects, name = part.read(0)
    assert name == "p/a.jpg" and objects.classes.tolist() == [0, 0, 1]
    assert objects.boxes.tolist() == [[1, 1, 5, 5], [1, 1, 5, 5], [1, 0, 6, 5]]
    drawn = [mask(code, HEIGHT, WIDTH) for code in objects.segmentation]
    assert np.array_equal(drawn[0], mask(SQUARE, HEIGHT, WIDTH)) and np.array_equal(drawn[1], drawn[0])
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:5, 1:6] = 1
    assert np.array_equal(drawn[2], expected)
    assert [one["area"] for one in part.truth["annotations"]] == [16, 16, 25]
    found = get(dataset, tmp_path / "mine")
    assert "p/unlabelled.jpg" not in found.files and {"p/a.json", "p/b.json"} <= set(found.files)


def test_labelme_shapes_of_a_group_are_one_object_and_a_circle_is_round(tmp_path):
    halves = [[[0, 0], [2, 0], [2, 2]], [[4, 0], [6, 0], [6, 2]]]
    shapes = [shape("polygon", points, group_id=3) for points in halves] + [shape("circle", [[4, 3], [4, 5]])]
    _, objects, _ = opened(labelled(tmp_path, *shapes), tmp_path / "mine").read(0)
    assert objects.boxes.tolist() == [[0, 0, 6, 2], [2, 1, 6, 5]] and len(objects.segmentation[0]) == 2
    corners = np.reshape(objects.segmentation[1][0], (-1, 2))
    np.testing.assert_allclose(np.linalg.norm(corners - [4, 3], axis=1), 2)


@pytest.mark.parametrize(
    ("shapes", "classes", "path", "message"),
    [
        ([shape("polygon", [[1, 1], [5, 5]])], ("duck", "swan"), "a.jpg",
         r"p/a\.json: shape 1 \('duck'\) is a polygon of 2 points, which covers nothing; take it out, or draw it anew"),
        ([shape("point", [[1, 1]])], ("duck", "swan"), "a.jpg", r"shape 1 \('duck'\) is a point, which covers nothing"),
        ([shape("mask", [[1, 1], [2, 2]], mask="?")], ("duck", "swan"), "a.jpg", r"its mask is no image in base64"),
        ([shape("rectangle", SHAPES["rectangle"])], ("goose", "swan"), "a.jpg",
         "annotations have the category 'duck', and `classes` has 'goose', 'swan'; correct"),
        ([], ("duck", "swan"), "c.jpg", r"p/a\.json: imagePath c\.jpg is no file; put it there, or correct imagePath"),
        ([], ("duck", "swan"), "b.jpg", r"p/a\.json and p/b\.json are both of the image p/b\.jpg; take one of them"),
        ([{"label": 3}], ("duck", "swan"), "a.jpg", r"p/a\.json: shape 1: it lacks a label, or points of two numbers"),
    ],
)  # fmt: skip
def test_what_labelme_files_are_refused_for(tmp_path, shapes, classes, path, message):
    with pytest.raises(UserError, match=message):
        get(labelled(tmp_path, *shapes, classes=classes, path=path), tmp_path / "mine")
    assert not (tmp_path / "mine/manifest.json").exists()


def test_ids_that_are_words(tmp_path):
    things = [thing("x", "first", "2"), thing("y", "second", "1")]
    images = [image("first", "a.jpg"), image("second", "b.jpg")]
    text = document(images, things, (("1", "duck"), (2, "swan")))
    files = {"train.json": text, "val.json": text, "images/a.jpg": photo(), "images/b.jpg": photo("PNG")}
    part = opened(own(write(tmp_path / "own", files), {"train": 2, "val": 2}, **LAYOUT), tmp_path / "mine")
    assert part.image_ids == [1, 2] and [e["image_id"] for e in part.truth["annotations"]] == [1, 2]
    assert [part.read(index)[1].classes.tolist() for index in (0, 1)] == [[1], [0]]


def test_one_class_of_several_and_one_that_nothing_uses(tmp_path):
    files = {"train.json": document([image(1, "a.jpg")], [thing(1, 1)]), "images/a.jpg": photo()}
    folder = write(tmp_path / "own", files)
    found = get(own(folder, {"train": 1}, ("duck",), **LAYOUT), tmp_path / "one")
    assert found.check["splits"]["train"]["objects"]["classes"] == {"duck": [1, 0, 0]}
    found = get(own(folder, {"train": 1}, ("duck", "heron"), **LAYOUT), tmp_path / "two")
    assert found.check["splits"]["train"]["objects"]["classes"] == {"duck": [1, 0, 0], "heron": [0, 0, 0]}


def test_an_archive_is_as_good_as_a_folder(tmp_path):
    text = document([image(1, "a.jpg")], [thing(1, 1)])
    pack(tmp_path / "mine/archives/mine.zip", {"top/train.json": text, "top/images/a.jpg": photo()})
    layout = {"images": "top/images", "annotations": "top/{split}.json"}
    fields = FIELDS | {"splits": {"train": 1}, "coco": layout, "archives": [{"archive": "mine/mine.zip", "url": None}]}
    assert get(check(Dataset, fields, "mine"), tmp_path / "mine").splits == {"train": 1}


TWO = [image(1, "a.jpg"), image(2, "b.jpg")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (document(TWO, [thing(1, 1, segmentation=[[1, 1, 4, 4]])]), ""),
        (document(TWO, [thing(1, 1, 7)]), r"train\.json: the annotations 1 of image 1 have the category_id 7, wh"),
        (document(TWO, [thing(1, 1), thing(1, 2)]), r"train\.json: annotations: the id 1 occurs twice; give each"),
        (document([image(1, "a.jpg"), image("1", "b.jpg")], []), r"train\.json: images: the id 1 occurs twice"),
        (document([image(1, "a.jpg"), image(2, "x\\a.jpg")], [thing(1, 1)]),
         r"train\.json: images: a\.jpg and x\\a\.jpg are both images/a\.jpg; give each image one entry"),
        (document([image(1, "c.jpg")], []), r"the file_name c\.jpg is no file of images/; put it there, take the"),
        (document([image(1, "other/d.jpg")], []), r"the file_name other/d\.jpg is no file of images/; put it there"),
        (document([image(1, "e.jpg")], []),
         r"the file_name e\.jpg may be images/(one|two)/e\.jpg or images/(one|two)/e\.jpg; write the path below"),
        (document(TWO, []), r"the split 'train' has no objects; annotate some of its images"),
        (document([image(1, "a.jpg") | {"height": 7}, image(2, "b.jpg")], [thing(1, 1)]),
         r"images/a\.jpg is 6x8 .* but train\.json says 7x8"),
        (document(TWO, [thing(1, 1, bbox=[0.1, 0.1, 0.5, 0.5])]), r"train\.json: all boxes lie within 0\.\.1, so they"),
        (b"[]", r"train\.json has no list 'images'; it must be a COCO instances file"),
        (None, r"mine has no file train\.json; put it there, or correct coco\.annotations of params/datasets\.yaml"),
    ],
)  # fmt: skip
def test_what_stops_before_training(tmp_path, text, message):
    names = ("a.jpg", "b.jpg", "z/d.jpg", "one/e.jpg", "two/e.jpg")
    folder = write(tmp_path / "own", {f"images/{name}": photo() for name in names})
    if text is not None:
        write(folder, {"train.json": text})
    dataset = own(folder, {"train": 2}, **LAYOUT)
    if not message:  # a polygon of two points: detection does without, and masks are refused
        assert (
            "has no polygon of three points"
            in get(dataset, tmp_path / "mine").check["splits"]["train"]["objects"]["masks"]
        )
        with pytest.raises(
            UserError, match=r"train\.json: the annotations 1 of image 1 have no polygon of three points"
        ):
            open_objects(tmp_path / "mine", dataset.use("instance"), "train", masks=True)
        return
    with pytest.raises(UserError, match=message):
        get(dataset, tmp_path / "mine")
    assert not (tmp_path / "mine/manifest.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": "a.json"}, "split by {split} in annotations, by lists or by fractions; say one of these"),
        ({"annotations": "{split}"}, "annotations is '{split}'; write the path of a JSON file"),
        ({"images": "images/*.jpg"}, r"images is 'images/\*\.jpg'; write a folder"),
        ({"images": "{split}", "annotations": "a.json", "fractions": {"train": 1}}, "images has {split}, and ann"),
        ({"fractions": {"train": 0.5}, "annotations": "a.json"}, "fractions add up to 0.5; make it 1"),
        ({"folders": {"test": "a"}}, r"coco\.folders has 'test', which splits has not"),
        ({"image": "images"}, r"coco\.image: unknown key; did you mean 'images'"),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_meant(changes, message):
    with pytest.raises(UserError, match=f"^datasets.yaml: mine: .*{message}"):
        own("own", {"train": 1}, **{**LAYOUT, **changes})


def three(folder, *categories, classes=("duck", "swan")):
    """A dataset of three splits of one image, each with one object of each category."""
    for n, split in enumerate(("train", "val", "test")):
        things = [thing(number, 1, category) for number, category in enumerate(categories, 1)]
        write(folder, {f"{split}.json": document([image(1, f"{n}.png")], things), f"images/{n}.png": png(GREY + n)})
    return own(folder, dict.fromkeys(("train", "val", "test"), 1), classes, **LAYOUT)


def test_a_misspelt_class_is_said_once_for_all_splits(tmp_path):
    dataset = three(tmp_path / "own", 1, 2, classes=("duck", "swann"))
    with pytest.raises(UserError) as caught:
        get(dataset, tmp_path / "mine")
    assert str(caught.value).startswith(
        "mine: annotations have the category 'swan', and `classes` has 'duck', 'swann'; correct `classes` of the "
        "dataset in params/datasets.yaml: 'swann' is no category (did you mean 'swan'?); only if such objects are not "
        "wanted, list the ids of their annotations under skip_annotations there; then run `bcd fetch mine`"
    )
    assert str(caught.value).count("swann") == 2
    skipped = dataset.model_copy(update={"skip_annotations": [2]})
    assert get(skipped, tmp_path / "mine").splits == dataset.splits


def test_a_class_that_no_annotation_uses_is_said_once_with_its_remedy(tmp_path):
    found = get(three(tmp_path / "own", 1, 2, classes=("duck", "swan", "birds")), tmp_path / "mine")
    unused = "no annotation uses 'birds'; take it out of `classes` in params/datasets.yaml"
    assert findings.warnings(found.check) == findings.warnings(found.check, "detection", ("train",)) == [unused]
    assert findings.warnings(found.check, "semantic") == []
    found = get(three(tmp_path / "one", 1), tmp_path / "two")
    write(tmp_path / "one", {"val.json": document([image(1, "1.png")], [thing(1, 1), thing(2, 1, 2)])})
    found = get(own(tmp_path / "one", found.splits, **LAYOUT), tmp_path / "three")
    assert sorted(findings.warnings(found.check)) == [
        f"the class 'swan' has no object in the split '{split}'" for split in ("test", "train")
    ]


def test_a_class_of_crowds_is_used(tmp_path):
    things = [thing(1, 1), thing(2, 1, 2, CODE, iscrowd=1)]
    write(tmp_path / "own", {"train.json": document([image(1, "a.png")], things), "images/a.png": png(GREY)})
    found = get(own(tmp_path / "own", {"train": 1}, **LAYOUT), tmp_path / "mine")
    assert not [one for one in findings.warnings(found.check) if "no annotation uses" in one]


def test_a_wrong_size_of_an_image_is_named_before_the_boxes_that_it_spoils(tmp_path):
    images = [image(1, "a.png") | {"width": 3}, image(2, "b.png") | {"width": 3}, image(3, "c.png")]
    files = {f"images/{name}.png": png(GREY + n) for n, name in enumerate("abc")}
    text = document(images, [thing(1, 1), thing(2, 2), thing(3, 3)])
    write(tmp_path / "own", files | {"train.json": text})
    with pytest.raises(UserError) as caught:
        get(own(tmp_path / "own", {"train": 3}, **LAYOUT), tmp_path / "mine")
    assert str(caught.value).startswith(
        "mine: images/a.png is 6x8 (height x width), but train.json says 6x3, and 1 more of its images are of "
        "another size than it says; correct the size there, or get both anew; then"
    )
    assert "box" not in str(caught.value)
    images = [image(number, one["file_name"]) for number, one in enumerate(images, 1)]
    write(tmp_path / "own", {"train.json": document(images, [thing(1, 1, bbox=[5, 1, 8, 4])])})
    with pytest.raises(UserError, match=r"train\.json: the annotations 1 of image 1 have a box outside of their image"):
        get(own(tmp_path / "own", {"train": 3}, **LAYOUT), tmp_path / "mine")
