"""The scene generator: the same bytes everywhere, and labels, instances and boxes that agree."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from bcd.data import tree
from bcd.data.acquire import manifest
from bcd.data.acquire.look import by_path
from bcd.data.formats.scenes import CLASSES, PALETTE, THINGS, contact_sheet, generate, render, samples
from bcd.data.formats.scenes.paint import TONES
from bcd.data.formats.scenes.scene import MIN_VISIBLE, reduce_segments


@pytest.fixture(scope="module")
def scenes():
    return [render(7, index) for index in range(60)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    generate(root, seed=7, size=96, splits={"train": 6, "val": 3})
    return root


def unpacked(root):
    return tree.listed_in(root, by_path(manifest.scan(root)), "toy")


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_shapes_and_types(scenes):
    for scene in scenes:
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        assert scene.label.shape == (96, 96) and scene.label.dtype == np.uint8
        assert scene.instance.shape == (96, 96) and scene.instance.dtype == np.uint16
        assert scene.label.max() < len(CLASSES)


def test_instances_and_semantic_label_agree(scenes):
    things = [CLASSES.index(name) for name in THINGS]
    for scene in scenes:
        assert [thing["id"] for thing in scene.things] == list(range(1, len(scene.things) + 1))
        assert set(np.unique(scene.instance)) - {0} == {thing["id"] for thing in scene.things}
        for thing in scene.things:
            assert set(scene.label[scene.instance == thing["id"]]) == {thing["class"]}
        assert np.array_equal(np.isin(scene.label, things), scene.instance > 0)


def test_every_class_occurs_often_and_none_rules(scenes):
    share = np.bincount(np.concatenate([scene.label.ravel() for scene in scenes]), minlength=len(CLASSES))
    share = share / share.sum()
    assert share.max() < 0.5
    assert share.min() > 0.003
    for number in range(len(CLASSES)):
        assert np.mean([(scene.label == number).any() for scene in scenes]) > 0.6


def test_thin_structures_survive_the_reduction(scenes):
    """Most pole and sign pixels vanish under a 3x3 opening: they are one or two pixels wide."""
    kernel = np.ones((3, 3), np.uint8)
    for name in ("pole", "sign"):
        masks = [(scene.label == CLASSES.index(name)).astype(np.uint8) for scene in scenes]
        opened = [cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel) for mask in masks]
        assert sum(map(np.sum, opened)) < 0.6 * sum(map(np.sum, masks))


def test_signs_and_windows_are_see_through(scenes):
    """Holes of a class's mask hold other classes in many scenes."""
    for name in ("sign", "building"):
        holes = 0
        for scene in scenes:
            mask = (scene.label == CLASSES.index(name)).astype(np.uint8)
            _, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            holes += hierarchy is not None and bool((hierarchy[0, :, 3] >= 0).any())
        assert holes > 15


def test_things_are_large_enough_to_be_found(scenes):
    """Visibility is decided at double size, so the reduction may take a little off."""
    areas = [np.sum(scene.instance == thing["id"]) for scene in scenes for thing in scene.things]
    assert len(areas) > 150
    assert min(areas) >= MIN_VISIBLE // 2


def test_reduction_takes_the_majority_and_in_a_tie_the_front():
    blocks = np.array([[1, 1, 2, 2], [1, 9, 5, 5], [3, 4, 7, 7], [5, 6, 7, 7]], np.uint8)
    assert reduce_segments(blocks).tolist() == [[1, 5], [6, 7]]


@pytest.mark.parametrize("rise", [-60, -9, 0, 13, 28, 70])
def test_a_wire_of_two_fine_pixels_stays_unbroken(rise):
    fine = np.zeros((200, 80), np.uint8)
    cv2.line(fine, (0, 100), (79, 100 + rise), 1, 2)
    coarse = reduce_segments(fine)
    assert coarse.any(axis=0).all()
    assert cv2.connectedComponents(coarse)[0] == 2


def test_scenes_differ_by_seed_index_and_split():
    pictures = [render(*key).image.tobytes() for key in ((1, 0), (1, 1), (2, 0))]
    pictures.append(render(1, 0, split="val").image.tobytes())
    assert len(set(pictures)) == 4


@pytest.mark.parametrize("size", [48, 75, 160])
def test_other_sizes(size):
    scene = render(0, 3, size)
    assert scene.image.shape == (size, size, 3)
    assert {"sky", "ground"} <= {CLASSES[n] for n in np.unique(scene.label)}


def test_bytes_are_the_same_in_another_process_and_chunking(dataset, tmp_path):
    """Another process writes fewer scenes and the splits in another order."""
    code = (
        "import sys, pathlib; from bcd.data.formats.scenes import generate;"
        "generate(pathlib.Path(sys.argv[1]), seed=7, size=96, splits={'val': 3, 'train': 2})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
    here, there = digests(dataset), digests(tmp_path)
    assert len(here) == 9 * 3 + 2
    assert there["instances_val.json"] == here["instances_val.json"]
    for name, digest in there.items():
        if name.endswith(".png"):
            assert digest == here[name]


def test_files_hold_the_rendered_arrays(dataset):
    sample = samples(unpacked(dataset), "val")[2]
    scene = render(7, 2, split="val")
    assert np.array_equal(cv2.imread(str(dataset / sample.image))[:, :, ::-1], scene.image)
    assert np.array_equal(cv2.imread(str(dataset / sample.label), cv2.IMREAD_UNCHANGED), scene.label)
    instance = cv2.imread(str(dataset / "instances/val/00002.png"), cv2.IMREAD_UNCHANGED)
    assert instance.dtype == np.uint16
    assert np.array_equal(instance, scene.instance)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools
def test_coco_file_agrees_with_the_maps(dataset):
    coco = COCO(str(dataset / "instances_train.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(THINGS)
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    for image in coco.loadImgs(coco.getImgIds()):
        index = image["id"] - 1
        scene = render(7, index)
        assert image["file_name"] == samples(unpacked(dataset), "train")[index].image
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert len(annotations) == len(scene.things)
        for thing, annotation in zip(scene.things, annotations, strict=True):
            mask = scene.instance == thing["id"]
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box
            assert annotation["area"] == mask.sum()
            assert annotation["iscrowd"] == 0
            assert THINGS[annotation["category_id"] - 1] == CLASSES[thing["class"]]
            assert np.array_equal(coco_mask.decode(annotation["segmentation"]) > 0, mask)


def test_coco_bytes_are_canonical(dataset):
    text = (dataset / "instances_val.json").read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) + "\n"


def test_progress_counts_every_scene(tmp_path):
    calls = []
    generate(tmp_path, seed=0, size=32, splits={"a": 2, "b": 1}, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_contact_sheet(scenes):
    assert contact_sheet(scenes[:4], 2).shape == (4 * 102, 2 * 102, 3)
    assert len(PALETTE) == len(CLASSES) == len(TONES)
