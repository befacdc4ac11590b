"""COCO-Stuff, whose two versions store the same classes in different files."""

import numpy as np
import pytest
from support.dataset_layouts import REAL, get, lines, mat, opened, params, photo, png, spread, write_mirror

from bcd.data.formats import _cocostuff_labels, cocostuff10k, cocostuff164k
from bcd.errors import UserError

ZIP = "cocostuff10k/cocostuff-10k-v1.1.zip"
NAMES = {"train": ["COCO_train2014_02", "COCO_train2014_01"], "test": ["COCO_train2014_03"]}
EDGES = (1, 11, 13, 90, 92, 182)  # labels around the gaps
CLASSES = (0, 10, 11, 79, 80, 170)


def small_version():
    files = {"cocostuff-labels.txt": b"", "imageLists/all.txt": b""}
    for split, names in NAMES.items():
        files[f"imageLists/{split}.txt"] = lines(*names)
        for name in names:
            files[f"images/{name}.jpg"] = photo()
            files[f"annotations/{name}.mat"] = mat(S=spread(0, *EDGES), names=np.array(["unlabeled"], object))
    return files


def large_version():
    kinds = ("train2017", "val2017", "stuffthingmaps_trainval2017")
    archives = {f"cocostuff164k/{kind}.zip": {} for kind in kinds}
    for split, name in (("train2017", "000000000009"), ("val2017", "000000000139")):
        archives[f"cocostuff164k/{split}.zip"][f"{split}/{name}.jpg"] = photo()
        mask = png(spread(255, *(label - 1 for label in EDGES)))
        archives["cocostuff164k/stuffthingmaps_trainval2017.zip"][f"{split}/{name}.png"] = mask
    return archives


def test_classes_are_the_labels_with_pixels_in_order():
    assert len(_cocostuff_labels.LABELS) == 171
    assert set(range(1, 183)) - set(_cocostuff_labels.LABELS) == set(_cocostuff_labels.NO_PIXELS)
    assert [_cocostuff_labels.LABELS.index(label) for label in EDGES] == list(CLASSES)


def test_layout_of_the_10k_version(tmp_path):
    found = get("cocostuff10k", tmp_path / "data", write_mirror(tmp_path / "mirror", {ZIP: small_version()}))
    assert found.splits == {"train": 2, "val": 1}
    assert "sample: 2 of 9000 train, 1 of 1000 val images" in found.note
    train = opened("cocostuff10k", tmp_path / "data", "train")
    assert [sample.name for sample in train.samples] == NAMES["train"]
    np.testing.assert_array_equal(train.read(0)[1].ravel()[:7], [255, *CLASSES])


def test_layout_of_the_164k_version(tmp_path):
    found = get("cocostuff164k", tmp_path / "data", write_mirror(tmp_path / "mirror", large_version()))
    assert found.splits == {"train": 1, "val": 1}
    val = opened("cocostuff164k", tmp_path / "data", "val")
    assert [sample.image for sample in val.samples] == ["val2017/000000000139.jpg"]
    np.testing.assert_array_equal(val.read(0)[1].ravel()[:7], [255, *CLASSES])


def test_a_missing_file_is_named(tmp_path):
    files = small_version()
    del files["annotations/COCO_train2014_03.mat"]
    with pytest.raises(UserError, match=r"COCO_train2014_03\.jpg has no mask annotations/COCO_train2014_03\.mat"):
        get("cocostuff10k", tmp_path / "small", write_mirror(tmp_path / "mirror", {ZIP: files}))
    archives = large_version()
    archives["cocostuff164k/val2017.zip"]["val2017/1.jpg"] = photo()
    with pytest.raises(UserError, match=r"image val2017/1\.jpg has no mask val2017/1\.png"):
        get("cocostuff164k", tmp_path / "large", write_mirror(tmp_path / "mirror", archives))


@pytest.mark.parametrize("label", [*_cocostuff_labels.NO_PIXELS, 183])
def test_a_label_without_a_class_is_refused(label):
    with pytest.raises(UserError, match=f"holds the value {label},"):
        cocostuff10k.read_label(mat(S=spread(1, label)), "m.mat")
    with pytest.raises(UserError, match=f"holds the value {label - 1},"):
        cocostuff164k.read_label(png(spread(255, label - 1)), "m.png")


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/mirror")
def test_the_real_samples(tmp_path):
    labels = {}
    for name in ("cocostuff10k", "cocostuff164k"):
        found = get(name, tmp_path / name, REAL)
        assert (found.origin, found.official) == ("mirror", False)
        for split in ("train", "val"):
            part = opened(name, tmp_path / name, split)
            assert len(part) == found.splits[split]
            for index, sample in enumerate(part.samples):
                label = part.read(index)[1]
                assert (label < 171).any()
                labels.setdefault(int(sample.name.rpartition("_")[2]), []).append(label)
    shared = [both for both in labels.values() if len(both) == 2]
    for small, large in shared:
        np.testing.assert_array_equal(small, large)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/mirror")
def test_class_names_are_those_of_the_real_archive(tmp_path):
    rows = get("cocostuff10k", tmp_path, REAL).read("cocostuff-labels.txt").decode().splitlines()
    names = {int(number): name.strip() for number, _, name in (row.partition(":") for row in rows)}
    for version in ("cocostuff10k", "cocostuff164k"):
        assert params(version).classes == [names[label] for label in _cocostuff_labels.LABELS]
