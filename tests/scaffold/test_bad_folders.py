"""Bad input of people's own, through `bcd new`'s look and through `bcd fetch`: one sentence each, with a remedy."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.project import ROOT

from bcd.config.check import check
from bcd.config.load import load_params
from bcd.config.schema.data import Dataset
from bcd.config.suites import load_suite
from bcd.data.acquire.obtain import obtain
from bcd.data.findings import unusable, warnings
from bcd.errors import UserError
from bcd.runs.expand import suite_runs
from bcd.runs.unfit import unfit_data
from bcd.scaffold import masks, objects
from bcd.scaffold.look import tree_of
from bcd.train import job

SIDE = 64
SQUARE = [[1, 1, 40, 1, 40, 40, 1, 40]]


def save(path: Path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def mask(*patches, side=SIDE, kind=np.uint8):
    """Zeros, and a square of each (value, side), one right of the other."""
    pixels = np.zeros((side, side), kind)
    for number, (value, size) in enumerate(patches):
        pixels[:size, 30 * number : 30 * number + size] = value
    return pixels


def photographs(root: Path) -> None:
    chance = np.random.default_rng(0)
    for n in range(10):
        save(root / f"photos/{n}.jpg", chance.integers(0, 256, (SIDE, SIDE, 3), np.uint8))


def with_masks(root: Path) -> None:
    photographs(root)
    for n in range(10):
        save(root / f"masks/{n}_mask.png", mask((1, 20), (2, 20)))


def document():
    images = [{"id": n, "file_name": f"{n}.jpg", "height": SIDE, "width": SIDE} for n in range(10)]
    things = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 39, 39], "area": 1521, "segmentation": SQUARE}
        for n in range(10)
    ]
    return {"images": images, "categories": [{"id": 1, "name": "duck"}], "annotations": things}


def write(root: Path, content) -> None:
    (root / "result.json").write_text(json.dumps(content))


def with_objects(root: Path) -> None:
    photographs(root)
    write(root, document())


def entry(root: Path, **more) -> Dataset:
    """What `bcd new` says of the folder."""
    files = tree_of(root, "own")
    found = objects.describe(files, str(root), ()) if objects.annotated(files) else masks.describe(
        files, str(root), more.get("names", ()), more.get("void", ()))  # fmt: skip
    return check(Dataset, found.entry, "own")


def refused(call) -> str:
    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


def other_size(root):
    save(root / "masks/3_mask.png", mask((1, 9), side=32))


def stray_value(root):
    save(root / "masks/3_mask.png", mask((1, 20), (77, 3)))


def no_mask(root):
    (root / "masks/3_mask.png").unlink()


def no_image(root):
    (root / "photos/3.jpg").unlink()


def two_images(root):
    save(root / "photos/3.png", np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8))


def sixteen_bits(root):
    save(root / "masks/3_mask.png", mask((1, 20), kind=np.uint16))


def unreadable_mask(root):
    (root / "masks/3_mask.png").write_bytes(b"no")


def first_mask_unreadable(root):
    (root / "masks/0_mask.png").write_bytes(b"no")


def empty_mask(root):
    (root / "masks/0_mask.png").write_bytes(b"")


def cut_mask(root):
    path = root / "masks/0_mask.png"
    path.write_bytes(path.read_bytes()[:-30])


def folder_as_mask(root):
    (root / "masks/3_mask.png").unlink()
    (root / "masks/3_mask.png").mkdir()


def empty_image(root):
    (root / "photos/3.jpg").write_bytes(b"")


def broken_image(root):
    (root / "photos/3.jpg").write_bytes(b"\xff\xd8 no photograph")


@pytest.mark.parametrize(
    ("spoil", "new", "fetch"),
    [
        (other_size, "mask masks/3_mask.png has 32 x 32 pixels, but the image photos/3.jpg has 64 x 64; save it in",
         "masks/3_mask.png"),
        (stray_value, "of 10 masks, the value 77 is in one alone, masks/3_mask.png, in 9 of its 4,096 pixels; mend "
         "that mask, write --void 77 if such pixels mean nothing, or name all 4 values by --classes",
         "mask masks/3_mask.png holds the value 77, which has no class; give it one in masks.values"),
        (no_mask, "the image photos/3.jpg has no mask masks/3_mask.png; add it, or take the image away",
         "no mask is at masks/*_mask.png for the image photos/3.jpg"),
        (no_image, "the mask masks/3_mask.png has no image of its name in photos; add it, or take the mask away",
         "no image is at photos for the mask masks/3_mask.png"),
        (two_images, "photos/3.jpg and photos/3.png have one name, '3'; take one of them away, or rename it",
         "photos/3.jpg and photos/3.png have one name, '3'; take one away"),
        (sixteen_bits, "masks/3_mask.png is of mode 'I;16'; a mask must hold class ids in one 8-bit channel, so save "
         "it as an 8-bit grey PNG", "masks/3_mask.png is of mode 'I;16'"),
        (unreadable_mask, "masks/3_mask.png is not a readable image (BMP", "masks/3_mask.png is not a readable image"),
        (first_mask_unreadable, "masks/0_mask.png is not a readable image (BMP", "masks/0_mask.png is not a readable"),
        (empty_mask, "masks/0_mask.png is an empty file, no image; get the", "masks/0_mask.png is an empty file"),
        (cut_mask, "masks/0_mask.png is not a readable image (", "masks/0_mask.png is not a readable image"),
        (folder_as_mask, "the image photos/3.jpg has no mask masks/3_mask.png; add it", "no mask is at masks/*_mask"),
        (empty_image, "photos/3.jpg is an empty file, no image; get the file anew", "photos/3.jpg is an empty file"),
        (broken_image, "photos/3.jpg is not a readable image", "photos/3.jpg"),
    ],
)  # fmt: skip
def test_a_folder_with_masks(tmp_path, spoil, new, fetch):
    root = tmp_path / "own"
    with_masks(root)
    good = entry(root)
    spoil(root)
    said = refused(lambda: entry(root))
    assert new in said and "; " in said and "params/datasets.yaml" not in said
    said = refused(lambda: obtain("own", good, tmp_path / "data/own", mirror_dir=None))
    assert fetch in said and "; " in said


def test_a_value_in_one_mask_alone_is_named_ignored_or_large(tmp_path):
    with_masks(tmp_path)
    stray_value(tmp_path)
    assert entry(tmp_path, void=["77"]).masks.void == ["77"]
    assert entry(tmp_path, names=["a", "b", "c", "d"]).classes[3] == "d"
    said = refused(lambda: entry(tmp_path, names=["a", "b", "c"]))
    assert "(77 is in one mask alone, masks/3_mask.png, in 9 of its 4,096 pixels)" in said
    (tmp_path / "codes.txt").write_text("a\nb\nc\n")
    assert "codes.txt has no name for the value 77, which is in masks/3_mask.png" in refused(lambda: entry(tmp_path))
    (tmp_path / "codes.txt").unlink()
    save(tmp_path / "masks/3_mask.png", mask((1, 20), (77, 20)))
    notes = masks.describe(tree_of(tmp_path, "own"), "own", (), ()).notes
    assert "77 is in one mask alone, masks/3_mask.png, in 400 of its 4,096 pixels; --void 77 ignores it" in notes


def test_one_class_everywhere_is_nothing_to_learn(tmp_path):
    with_masks(tmp_path / "own")
    for n in range(10):
        save(tmp_path / f"own/masks/{n}_mask.png", mask())
    assert "the masks hold no more than 0, so there is one class at most" in refused(lambda: entry(tmp_path / "own"))
    with_masks(tmp_path / "own")
    said = refused(lambda: entry(tmp_path / "own", void=["0", "1"]))
    assert "hold no more than 0, 1, 2 (0, 1 are ignored), so there is one class at most" in said


def gone(root):
    (root / "photos/3.jpg").unlink()


def changed(change):
    """A spoiler that changes the annotation file."""

    def spoil(root):
        content = document()
        change(content)
        write(root, content)

    return spoil


def twice(content):
    content["annotations"][3]["id"] = 4


def strange_category(content):
    content["annotations"][3]["category_id"] = 9


def outside(content):
    content["annotations"][3]["bbox"] = [50, 50, 39, 39]


@pytest.mark.parametrize(
    ("spoil", "new", "fetch"),
    [
        (gone, "result.json lists the image 3.jpg, and photos/ has no file of that name; put it there, or take the",
         "result.json: images: the file_name 3.jpg is no file of photos/; put it there"),
        (changed(twice), "result.json: annotations: the id 4 occurs twice; give each entry an id of its own",
         "result.json: annotations: the id 4 occurs twice"),
        (changed(strange_category), "", "have the category_id 9, which is not among the file's categories; correct"),
        (changed(outside), "", "have a box outside of their image; correct the file"),
        (lambda root: (root / "result.json").write_text("{"), "result.json is not valid JSON", "result.json"),
    ],
)  # fmt: skip
def test_a_folder_with_objects(tmp_path, spoil, new, fetch):
    root = tmp_path / "own"
    with_objects(root)
    good = entry(root)
    spoil(root)
    if new:
        said = refused(lambda: entry(root))
        assert new in said and "; " in said and "params/datasets.yaml" not in said
    said = refused(lambda: obtain("own", good, tmp_path / "data/own", mirror_dir=None))
    assert fetch in said and "; " in said


def test_no_object_at_all_is_said_whatever_the_classes(tmp_path):
    with_objects(tmp_path)
    write(tmp_path, document() | {"annotations": []})
    for names in ((), ("duck",)):
        said = refused(lambda names=names: objects.describe(tree_of(tmp_path, "own"), "own", names))
        assert said == "the annotation files have no objects of a category that they list; annotate some images"


def words(content):
    for entries in (content["images"], content["annotations"], content["categories"]):
        for one in entries:
            one |= {key: f"n{one[key]}" for key in ("id", "image_id", "category_id") if key in one}


def idle(content):
    content["categories"].append({"id": 2, "name": "swan"})


@pytest.mark.parametrize("change", [words, idle])
def test_ids_that_are_words_and_categories_without_objects_are_no_fault(tmp_path, change):
    with_objects(tmp_path / "own")
    changed(change)(tmp_path / "own")
    found = entry(tmp_path / "own")
    assert found.classes == ["duck"]
    assert obtain("own", found, tmp_path / "data", mirror_dir=None).splits == {"train": 6, "val": 2, "test": 2}


def test_a_polygon_of_two_points_serves_detection_and_no_masks(tmp_path, monkeypatch):
    with_objects(tmp_path / "own")
    changed(lambda content: content["annotations"][3].update(segmentation=[[1, 1, 40, 40]]))(tmp_path / "own")
    found = obtain("own", entry(tmp_path / "own"), tmp_path / "data/own", mirror_dir=None)
    splits = [split for split in found.splits if unusable(found.check, "instance", [split])]
    assert len(splits) == 1 and not unusable(found.check, "detection", found.splits)
    assert warnings(found.check) == unusable(found.check, "instance", found.splits) == [
        f"the split '{splits[0]}' does not serve instance segmentation, as result.json: annotation 3 of the image "
        "photos/3.jpg has no polygon of three points or more; draw it, take it out, or list its id under "
        "skip_annotations in params/datasets.yaml"
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    runs = suite_runs(load_params(ROOT / "params"), load_suite("smoke", ROOT / "params")).values()
    of = {
        run.training.task: replace(run, files="own", evaluation=run.evaluation.model_copy(update={"split": splits[0]}))
        for run in runs
    }
    assert not unfit_data([of["detection"]])
    said = refused(lambda: job.run_group("own", [of["instance"]], print))
    assert said == f"data/own: {warnings(found.check)[0]}; then run `bcd fetch own`"
