"""COCO annotation files: what is read agrees with the pixels, and what is faulty is named."""

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from support.dataset_layouts import data_use, look_of
from support.project import SHARED

from bcd.config.schema.data import Archive
from bcd.data import tree
from bcd.data.acquire import manifest
from bcd.data.acquire.fetch import Source, fetch
from bcd.data.acquire.look import by_path
from bcd.data.formats import coco, scenes
from bcd.data.objects import annotations
from bcd.data.objects.masks import mask
from bcd.data.objects.split import open_objects
from bcd.errors import UserError
from bcd.metrics import detection_rows, summarise_detection

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools
MIRROR = SHARED / "mirror"
WHERE = "annotations/instances_val2017.json"
DATA = data_use("coco", ["cat", "dog"])
OFFICIAL = coco.reader(DATA)
FIELDS = {"dataset": "toy", "origin": "generated", "official": False, "licence": "", "source": "", "request": {}}
SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]
SQUARE_CODE = {"size": [8, 10], "counts": [9, 4, 4, 4, 4, 4, 4, 4, 43]}
RING = {"size": [8, 10], "counts": [11, 4, 65]}


def annotation(number, image=7, category=18, box=(1, 1, 4, 4), segmentation=SQUARE, crowd=0, **more):
    entry = {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "area": 16.0}
    return entry | {"segmentation": segmentation, "iscrowd": crowd} | more


def document(*entries, images=(7, 3, 9)):
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 10, "license": 4} for n in images],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        "annotations": list(entries),
    }


def written(root, content, size=(8, 10)):
    """The document and a picture for each of its images as a fetched dataset."""
    for folder in ("annotations", "val2017"):
        (root / folder).mkdir(parents=True)
    (root / WHERE).write_text(content if isinstance(content, str) else json.dumps(content))
    for image in () if isinstance(content, str) else content["images"]:
        pixels = np.full((*size, 3), image["id"], np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        (root / "val2017" / image["file_name"]).write_bytes(buffer.getvalue())
    manifest.write(root, FIELDS | {"splits": {"val": 3}})
    return root


@pytest.fixture
def root(tmp_path):
    entries = [
        annotation(900, image=7, category=17),
        annotation(0, image=9, category=18, box=(0, 1, 4, 1), segmentation=RING, crowd=1),
        annotation(5, image=7, category=18, box=(2, 3, 1.5, 2)),
    ]
    return written(tmp_path / "toy", document(*entries))


def refused(tmp_path, message, *entries, **changes):
    with pytest.raises(UserError, match=message) as caught:
        open_objects(written(tmp_path / "toy", document(*entries)), DATA.model_copy(update=changes), "val", masks=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_and_objects_follow_the_file(root):
    split = open_objects(root, DATA, "val", masks=True)
    assert len(split) == 3 and split.image_ids == [7, 3, 9]
    image, objects, name = split.read(0)
    assert image.shape == (8, 10, 3) and image.dtype == np.uint8 and (image == 7).all()
    assert name == "val2017/7.png"
    assert objects.boxes.dtype == np.float32 and objects.classes.dtype == np.int64 and objects.crowd.dtype == bool
    assert objects.boxes.tolist() == [[1, 1, 5, 5], [2, 3, 3.5, 5]]
    assert objects.classes.tolist() == [0, 1]
    assert objects.segmentation == [SQUARE, SQUARE]


def test_an_image_without_annotations_and_one_with_crowds_only(root):
    split = open_objects(root, DATA, "val", masks=True)
    assert split.annotated == [0]
    nothing, crowds = split.read(1)[1], split.read(2)[1]
    assert nothing.boxes.shape == (0, 4) and nothing.classes.shape == nothing.crowd.shape == (0,)
    assert nothing.segmentation == []
    assert crowds.crowd.tolist() == [True]


def test_truth_is_renumbered_and_speaks_of_our_classes(root):
    truth = open_objects(root, DATA, "val", masks=True).truth
    assert [image["id"] for image in truth["images"]] == [7, 3, 9]
    assert truth["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert [entry["id"] for entry in truth["annotations"]] == [1, 2, 3]
    assert [entry["category_id"] for entry in truth["annotations"]] == [0, 1, 1]
    assert [entry["iscrowd"] for entry in truth["annotations"]] == [0, 1, 0]
    assert truth["annotations"][1]["segmentation"] == RING


def test_without_masks_no_segmentation_is_needed_or_kept(tmp_path):
    split = open_objects(written(tmp_path / "toy", document(annotation(1, segmentation=[]))), DATA, "val", masks=False)
    assert split.read(0)[1].segmentation is None
    assert "segmentation" not in split.truth["annotations"][0]


@pytest.mark.parametrize(
    ("segmentation", "area"), [(SQUARE, 16.0), (SQUARE_CODE, 16.0), ([], 20.0), ([[1, 1, 2, 1]], 20.0)]
)
def test_a_missing_area_is_that_of_the_segmentation_or_of_the_box(segmentation, area):
    entry = annotation(1, box=(1, 1, 5, 4), segmentation=segmentation)
    del entry["area"]
    text = json.dumps(document(entry)).encode()
    assert [
        one["area"]
        for one in annotations.parse(annotations.load(text, WHERE), WHERE, DATA.classes, masks=False)["annotations"]
    ] == [area]


@pytest.mark.parametrize(("crowd", "found"), [(None, 0), (False, 0), (True, 1), (1, 1)])
def test_a_crowd_is_what_says_so(crowd, found):
    text = json.dumps(document(annotation(1, crowd=crowd))).encode()
    assert annotations.parse(annotations.load(text, WHERE), WHERE, DATA.classes)["annotations"][0]["iscrowd"] == found


def test_every_kind_of_fault_is_named(tmp_path):
    refused(tmp_path, "1 of image 7 have an area .*, the annotations 2 of image 7 have a box of zero",
            annotation(1, area=0), annotation(2, box=(1, 1, 0, 4)))  # fmt: skip


def test_a_turned_image_is_named_as_such(tmp_path):
    root, exif, buffer = written(tmp_path / "toy", document(annotation(1))), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(buffer, "PNG", exif=exif.tobytes())
    (root / "val2017/7.png").write_bytes(buffer.getvalue())
    manifest.write(root, FIELDS | {"splits": {"val": 3}})
    with pytest.raises(UserError, match=r"7\.png is 10x8 \(height x width\) once turned by its orientation tag"):
        open_objects(root, DATA, "val", masks=True).read(0)


def test_a_split_of_crowds_says_that_nothing_can_be_learnt(root, tmp_path):
    nothing = open_objects(written(tmp_path / "none", document()), DATA, "val", masks=True)
    assert "'val' has no objects" in nothing.lacking("val")
    crowds = document(annotation(1, crowd=1, segmentation=RING), annotation(2, crowd=1, segmentation=RING))
    split = open_objects(written(tmp_path / "crowds", crowds), DATA, "val", masks=True)
    assert not split.annotated and split.lacking("val").startswith("all 2 objects of the split 'val' are crowds")


def test_one_class_is_enough(tmp_path):
    content = document(annotation(1), annotation(2, image=3)) | {"categories": [{"id": 18, "name": "dog"}]}
    split = open_objects(written(tmp_path / "toy", content), DATA.model_copy(update={"classes": ["dog"]}), "val",
                         masks=True)  # fmt: skip
    assert split.truth["categories"] == [{"id": 0, "name": "dog"}]
    assert [split.read(n)[1].classes.tolist() for n in range(3)] == [[0], [0], []]
    results = [{"image_id": 7, "category_id": 0, "bbox": [1, 1, 4, 4], "score": 0.9, "segmentation": SQUARE_CODE}]
    rows = detection_rows(split.truth, results, split.image_ids, ("box", "mask", "boundary"))
    for suffix in ("", "_mask", "_boundary"):
        assert summarise_detection(rows)[f"ap{suffix}"] == pytest.approx(100 * 51 / 101)


def test_listed_annotations_are_left_out(tmp_path):
    root = written(tmp_path / "toy", document(annotation(918, box=(1, 1, 3, 0)), annotation(4)))
    split = open_objects(root, DATA.model_copy(update={"skip_annotations": [918]}), "val", masks=True)
    assert [(entry["id"], entry["area"]) for entry in split.truth["annotations"]] == [(1, 16.0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"area": 1e9}, "have an area of more pixels than their image"),
        ({"area": -16.0}, "have an area that is not a number above 0"),
        ({"area": 0}, "have an area that is not a number above 0"),
        ({"area": float("nan")}, "have an area that is not a number above 0"),
        ({"area": float("inf")}, "have an area that is not a number above 0"),
        ({"area": "large"}, "have an area that is not a number above 0"),
        ({"area": None}, "have an area that is not a number above 0"),
        ({"crowd": 2}, "have an iscrowd that is neither 0 nor 1"),
        ({"crowd": "no"}, "have an iscrowd that is neither 0 nor 1"),
        ({"box": (1, 1, 4, 0)}, "have a box of zero area"),
        ({"box": (1, 1, -2, 4)}, "have a box of zero area"),
        ({"box": (1, 1, float("nan"), 4)}, "have a box of zero area"),
        ({"box": (-1.1, 1, 4, 4)}, "have a box outside of their image"),
        ({"box": (1, 1, 4, 8.5)}, "have a box outside of their image"),
        ({"box": (1, 1, 4)}, "have a box that is not x, y, width, height"),
        ({"box": (1, 1, "4", 4)}, "have a box that is not x, y, width, height"),
        ({"image": 8}, "belong to an image that the file does not list"),
        ({"category": 19}, "have the category_id 19, which is not among the file's categories"),
        ({"segmentation": []}, "have no segmentation"),
        ({"segmentation": None}, "have no segmentation"),
        ({"segmentation": [[1, 1, 2, 2]]}, "have no polygon of three points or more"),
        ({"segmentation": {"size": [10, 8], "counts": [80]}}, "run-length code that is not of their image's size"),
        ({"segmentation": {"size": [8, 10], "counts": [79]}}, "run-length code that does not cover their image"),
        ({"segmentation": {"size": [8, 10], "counts": [81, -1]}}, "run-length code that does not cover their image"),
        ({"segmentation": {"size": [8, 10], "counts": "1`2"}}, "run-length code that does not cover their image"),
        ({"segmentation": {"size": [8, 10], "counts": "`"}}, "run-length code that does not cover their image"),
        ({"segmentation": {"size": [8, 10], "counts": "\x01"}}, "run-length code that does not cover their image"),
        ({"segmentation": {"size": [8, 10]}}, "run-length code that does not cover their image"),
    ],
)
def test_a_faulty_annotation_is_named_with_its_image_and_the_remedy(tmp_path, changes, message):
    text = refused(tmp_path, message, annotation(3), annotation(2206849, **changes))
    assert text.startswith(f"{WHERE}: the annotations 2206849 of image {changes.get('image', 7)} ")
    assert text.endswith("list the ids under skip_annotations in params/datasets.yaml")


def test_all_annotations_with_one_fault_are_listed_at_once(tmp_path):
    faulty = [annotation(n, box=(1, 1, 0, 4)) for n in range(100, 130)]
    text = refused(tmp_path, "zero area", annotation(1), *faulty)
    assert "100 of image 7, 101 of image 7" in text and "119 of image 7, 10 more have" in text


def test_a_box_may_end_one_pixel_outside(tmp_path):
    root = written(tmp_path / "toy", document(annotation(1, box=(-1, -1, 12, 10))))
    assert open_objects(root, DATA, "val", masks=True).annotated == [0]


def test_polygons_of_two_points_are_dropped_where_others_remain(tmp_path):
    root = written(tmp_path / "toy", document(annotation(1, segmentation=[[1, 1, 2, 2], *SQUARE, [1] * 7])))
    split = open_objects(root, DATA, "val", masks=True)
    assert split.truth["annotations"][0]["segmentation"] == SQUARE


def test_a_category_that_is_no_class_is_named(tmp_path):
    text = refused(tmp_path, "annotations have the category 'dog', and `classes` has 'cat'", annotation(1),
                   classes=["cat"])  # fmt: skip
    assert "add it to `classes` of the dataset in params/datasets.yaml; only if such objects are not wanted" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "has no list 'images'"),
        (document() | {"annotations": {}}, "has no list 'annotations'"),
        (document() | {"annotations": [3]}, "annotations, entry 0: 'id' is missing"),
        (document(annotation(1), annotation(2, bbox="large")), "annotations, id 2: 'bbox' is missing or of a wrong"),
        (document(annotation(1), annotation(1)), "annotations: the id 1 occurs twice"),
        (document(images=(7, 9, 9)), "images: the id 9 occurs twice"),
        (document() | {"images": [{**document()["images"][0], "id": n} for n in (1, 2)]}, "file 7.png occurs twice"),
    ],
)
def test_what_is_no_instances_file_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=rf"{WHERE}.*{message}"):
        open_objects(written(tmp_path / "toy", content), DATA, "val", masks=True)


def test_an_empty_split_and_a_dataset_size_are_refused(tmp_path, root):
    with pytest.raises(UserError, match=r"val2017\.json of toy lists no images; run `bcd fetch toy --force`"):
        open_objects(written(tmp_path / "empty", document(images=())), DATA, "val", masks=True)
    with pytest.raises(UserError, match="a dataset with a `size` is for segmentation"):
        open_objects(root, DATA.model_copy(update={"size": [4, 4]}), "val", masks=True)


def test_few_images_have_their_annotations_alone(root):
    whole, few = (open_objects(root, DATA.model_copy(update=more), "val", masks=True) for more in ({}, {"images": 2}))
    assert few.image_ids == whole.image_ids[:2]
    assert few.truth["annotations"] == [one for one in whole.truth["annotations"] if one["image_id"] in few.image_ids]
    assert len(few.truth["annotations"]) < len(whole.truth["annotations"])


def test_a_missing_image_and_an_altered_one(root):
    split = open_objects(root, DATA, "val", masks=True)
    (root / "val2017" / "3.png").write_bytes(b"altered")
    with pytest.raises(UserError, match=r"3\.png differs from what files\.csv records"):
        split.read(1)
    (root / "val2017" / "3.png").unlink()
    manifest.write(root, FIELDS | {"splits": {"val": 3}})
    with pytest.raises(UserError, match=r"images: the file_name 3\.png is no file of val2017/; put it there, take"):
        open_objects(root, DATA, "val", masks=True)


def test_an_image_of_another_size_than_its_annotations(tmp_path):
    split = open_objects(written(tmp_path / "toy", document(), size=(10, 8)), DATA, "val", masks=True)
    with pytest.raises(UserError, match=r"7\.png is 10x8 \(height x width\), but .* says 8x10"):
        split.read(0)


def test_run_lengths_are_those_that_pycocotools_wrote():
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.98):
        drawn = np.asfortranarray(rng.random((70, 90)) < share, np.uint8)
        drawn[:, 20:60] = 1  # one long run: numbers of several characters, and negative differences
        edges = np.flatnonzero(np.diff(drawn.ravel(order="F"), prepend=0))
        expected = np.diff(edges, prepend=0, append=drawn.size).tolist()
        assert annotations.run_lengths(coco_mask.encode(drawn)["counts"].decode()) == expected


def test_the_three_encodings_of_a_mask_agree():
    """A square and a triangle beside it; pixels are counted column by column."""
    drawn = mask([*SQUARE, [6, 0, 9, 0, 9, 3]], 8, 10)
    assert drawn.dtype == np.uint8 and drawn.shape == (8, 10) and set(np.unique(drawn)) == {0, 1}
    assert drawn[1:5, 1:5].all() and drawn[0, 8] == 1 and drawn[5:].sum() == 0
    edges = np.flatnonzero(np.diff(drawn.ravel(order="F"), prepend=0))
    counts = np.diff(edges, prepend=0, append=drawn.size).tolist()
    assert np.array_equal(mask({"size": [8, 10], "counts": counts}, 8, 10), drawn)
    code = coco_mask.encode(np.asfortranarray(drawn))
    assert np.array_equal(mask({"size": [8, 10], "counts": code["counts"].decode()}, 8, 10), drawn)


def counted(root):
    return look_of(OFFICIAL).splits(root, by_path(manifest.scan(root)))["splits"]


def test_counting_the_splits_of_an_unpacked_tree(tmp_path, root):
    with pytest.raises(UserError, match=r"toy has no file annotations/instances_train2017\.json; put it there"):
        counted(root)
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(document(images=())))
    assert counted(root) == {"train": 0, "val": 3}
    (root / "val2017" / "9.png").unlink()
    with pytest.raises(
        UserError, match=r"the file_name 9\.png is no file of val2017/; put it there, take the entry out"
    ):
        counted(root)


def test_scenes_agree_with_their_instance_maps(smoke_data):
    """Every mask, box and area against the pixels of the 16-bit instance PNG; classes against the label."""
    data = data_use("scenes", list(scenes.THINGS))
    for name in ("train", "val", "test"):
        split = open_objects(smoke_data, data, name, masks=True)
        areas = iter(entry["area"] for entry in split.truth["annotations"])
        assert len(split) == len(scenes.samples(tree.recorded(smoke_data), name))
        for index in range(len(split)):
            _, objects, path = split.read(index)
            ids, label = (
                cv2.imread(str(smoke_data / path.replace("images", folder, 1)), cv2.IMREAD_UNCHANGED)
                for folder in ("instances", "labels")
            )
            assert len(objects.boxes) == ids.max()
            for number, (box, kind, code) in enumerate(
                zip(objects.boxes, objects.classes, objects.segmentation, strict=True), 1
            ):
                rows, columns = np.nonzero(ids == number)
                assert np.array_equal(mask(code, *ids.shape), ids == number)
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert next(areas) == len(rows)
                assert {scenes.CLASSES[n] for n in label[ids == number]} == {scenes.THINGS[kind]}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The COCO sample of the mirror, unpacked, and its class names."""
    if not MIRROR.is_dir():
        pytest.skip("needs ../shared/mirror")
    root = tmp_path_factory.mktemp("data") / "coco2017"
    archives = (f"coco2017/{name}.zip" for name in ("train2017", "val2017", "annotations_trainval2017"))
    source = Source(
        "coco2017",
        tuple(Archive(archive=archive, url=None) for archive in archives),
        "",
        "",
        look_of(OFFICIAL),
    )
    found = fetch(source, root, MIRROR)
    assert found.splits == {"train": 108, "val": 121}
    categories = json.loads(found.read(OFFICIAL.annotation_file("val")))["categories"]
    return root, [category["name"] for category in categories]


@pytest.mark.parametrize(("name", "crowds", "annotated"), [("train", 10, 108), ("val", 12, 119)])
def test_real_images_have_the_masks_that_pycocotools_draws(sample, name, crowds, annotated):
    from pycocotools.coco import COCO

    root, classes = sample
    reference = COCO(str(root / OFFICIAL.annotation_file(name)))
    split = open_objects(root, DATA.model_copy(update={"classes": classes}), name, masks=True)
    assert len(split.annotated) == annotated
    assert sum(entry["iscrowd"] for entry in split.truth["annotations"]) == crowds
    for index in list(range(0, len(split), 10)) + [n for n in range(len(split)) if _has_crowd(split, n)]:
        image, objects, _ = split.read(index)
        expected = reference.imgToAnns[split.image_ids[index]]
        names = [reference.cats[entry["category_id"]]["name"] for entry in expected]
        assert [classes[n] for n in objects.classes] == names
        for entry, code, (left, top, right, bottom) in zip(expected, objects.segmentation, objects.boxes, strict=True):
            drawn = mask(code, *image.shape[:2])
            assert np.array_equal(drawn, reference.annToMask(entry))
            rows, columns = np.nonzero(drawn)
            assert left - 1 <= columns.min() and columns.max() <= right + 1
            assert top - 1 <= rows.min() and rows.max() <= bottom + 1


def _has_crowd(split, index):
    identity = split.image_ids[index]
    return any(entry["iscrowd"] and entry["image_id"] == identity for entry in split.truth["annotations"])


def test_parse_needs_no_files():
    truth = annotations.parse(document(annotation(1)), "x.json", ["dog"])
    assert truth["annotations"][0]["category_id"] == 0
