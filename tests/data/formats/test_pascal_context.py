import numpy as np
import pytest
from support.dataset_layouts import get, lines, mat, opened, params, photo, spread, write_mirror

from bcd.data.formats import pascal_context
from bcd.errors import UserError

TAR, TGZ = "pascal-context/VOCtrainval_03-May-2010.tar", "pascal-context/trainval.tar.gz"
VOC = "VOCdevkit/VOC2010"


def archives(rename=None):
    named = pascal_context.LABELS | (rename or {})
    names = [f"{number}: {named.get(number, f'other{number}')}" for number in range(1, 460)]
    voc = {
        f"{VOC}/ImageSets/Main/train.txt": lines("2008_000015", "2008_000008"),
        f"{VOC}/ImageSets/Main/val.txt": lines("2008_000002"),
        f"{VOC}/ImageSets/Main/cat_train.txt": lines("2008_000015 -1"),
        f"{VOC}/Annotations/2008_000002.xml": b"",
    }
    labels = {"labels.txt": lines(*names)}
    for name in ("2008_000002", "2008_000008", "2008_000015"):
        voc[f"{VOC}/JPEGImages/{name}.jpg"] = photo()
        labels[f"trainval/{name}.mat"] = mat(LabelMap=spread(0, 1, 2, 9, 458, 459))
    return {TAR: voc, TGZ: labels}


def test_the_official_layout(tmp_path):
    found = get("pascal-context", tmp_path / "data", write_mirror(tmp_path / "mirror", archives()))
    assert found.splits == {"train": 2, "val": 1}
    assert "sample: 2 of 4998 train, 1 of 5105 val images" in found.note
    train = opened("pascal-context", tmp_path / "data", "train")
    assert [sample.name for sample in train.samples] == ["2008_000015", "2008_000008"]
    np.testing.assert_array_equal(train.read(0)[1].ravel()[:6], [255, 255, 0, 1, 58, 255])


def test_classes_have_the_order_of_their_labels():
    classes = params("pascal-context").classes
    assert list(pascal_context.LABELS) == sorted(pascal_context.LABELS)
    assert list(pascal_context.LABELS.values()) == classes == sorted(classes)
    assert len(classes) == 59


def test_labels_numbered_in_another_way_are_refused(tmp_path):
    mirror = write_mirror(tmp_path / "mirror", archives({9: "ball"}))
    with pytest.raises(UserError, match="labels.txt calls label 9 'ball', not 'bag'"):
        get("pascal-context", tmp_path / "data", mirror)


@pytest.mark.parametrize(
    ("archive", "lost", "message"),
    [
        (TGZ, "trainval/2008_000008.mat", r"image .*2008_000008\.jpg has no mask trainval/2008_000008\.mat"),
        (TGZ, "labels.txt", r"the archives have no labels\.txt"),
        (TAR, f"{VOC}/JPEGImages/2008_000002.jpg", r"image .*2008_000002\.jpg is missing"),
        (TAR, f"{VOC}/ImageSets/Main/val.txt", r"the archives have no VOCdevkit/VOC2010/ImageSets/Main/val\.txt"),
    ],
)
def test_a_missing_file_is_named(tmp_path, archive, lost, message):
    files = archives()
    del files[archive][lost]
    with pytest.raises(UserError, match=message):
        get("pascal-context", tmp_path / "data", write_mirror(tmp_path / "mirror", files))


def test_a_label_above_459_is_refused():
    with pytest.raises(UserError, match="holds the value 460"):
        pascal_context.read_label(mat(LabelMap=spread(460)), "m.mat")
