import hashlib

import numpy as np
import pytest
from support.dataset_layouts import REAL, get, lines, look_of, mat, opened, params, photo, png, spread, write_mirror

from bcd.config.schema.data import Archive
from bcd.data import tree
from bcd.data.acquire.fetch import Source, fetch
from bcd.data.formats import voc
from bcd.errors import UserError

TAR, TGZ = "voc2012/VOCtrainval_11-May-2012.tar", "voc2012/benchmark.tgz"
LISTS = {
    f"{voc.VOC}/ImageSets/Segmentation/train.txt": lines("2007_01", "2007_02"),
    f"{voc.VOC}/ImageSets/Segmentation/val.txt": lines("2007_03"),
}


def devkit(*more):
    names = ["2007_01", "2007_02", "2007_03"]
    images = {f"{voc.VOC}/JPEGImages/{name}.jpg": photo() for name in [*names, "2010_unlisted", *more]}
    masks = {f"{voc.VOC}/SegmentationClass/{name}.png": png(spread(0, 20, 255), palette=True) for name in names}
    return LISTS | images | masks


def sbd(train, val):
    mask = mat(GTcls={"Segmentation": spread(0, 1, 20).astype(np.uint8), "CategoriesPresent": np.array([[1], [20]])})
    files = {f"{voc.SBD}/train.txt": lines(*train), f"{voc.SBD}/val.txt": lines(*val), f"{voc.SBD}/img/x.jpg": b""}
    return files | {f"{voc.SBD}/cls/{name}.mat": mask for name in [*train, *val]}


def test_the_augmented_list_is_voc_train_and_sbd_without_voc_val(tmp_path):
    files = {TAR: devkit("2008_1", "2008_2"), TGZ: sbd(["2007_02", "2008_1"], ["2007_03", "2008_2"])}
    found = get("voc2012", tmp_path / "data", write_mirror(tmp_path / "mirror", files))
    assert found.splits == {"train": 4, "val": 1}
    assert "sample: 4 of 10582 train, 1 of 1449 val images" in found.note
    assert not any("/img/" in path for path in found.files), "what is not needed is not unpacked"
    train = opened("voc2012", tmp_path / "data", "train")
    assert [sample.name for sample in train.samples] == ["2007_01", "2007_02", "2008_1", "2008_2"]
    assert [sample.label[-4:] for sample in train.samples] == [".png", ".png", ".mat", ".mat"]
    assert set(np.unique(train.read(1)[1])) == {0, 20, 255}
    assert set(np.unique(train.read(2)[1])) == {0, 1, 20}
    assert len(opened("voc2012", tmp_path / "data", "val")) == 1


def test_a_sample_without_sbd_trains_on_voc(tmp_path):
    found = get("voc2012", tmp_path / "data", write_mirror(tmp_path / "mirror", {TAR: devkit()}))
    assert found.splits == {"train": 2, "val": 1}


@pytest.mark.parametrize(
    ("archive", "lost", "message"),
    [
        (TAR, f"{voc.VOC}/ImageSets/Segmentation/val.txt", r"the archives have no .*Segmentation/val\.txt; check"),
        (TAR, f"{voc.VOC}/JPEGImages/2008_1.jpg", r"image .*2008_1\.jpg is missing"),
        (TAR, f"{voc.VOC}/SegmentationClass/2007_02.png", r"image .*2007_02\.jpg has no mask .*2007_02\.png"),
        (TGZ, f"{voc.SBD}/cls/2008_1.mat", r"image .*2008_1\.jpg has no mask .*cls/2008_1\.mat"),
        (TGZ, f"{voc.SBD}/val.txt", r"the archives have no benchmark_RELEASE/dataset/val\.txt"),
    ],
)
def test_a_missing_file_is_named(tmp_path, archive, lost, message):
    files = {TAR: devkit("2008_1"), TGZ: sbd(["2007_02", "2008_1"], [])}
    del files[archive][lost]
    with pytest.raises(UserError, match=message):
        get("voc2012", tmp_path / "data", write_mirror(tmp_path / "mirror", files))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"2007_01\n2007_02\n2007_01\n", "has 2007_01 twice; take one of the two lines out"),
        (b"2007_01 1\n", "'2007_01 1' is not one name; write one name a line"),
        (b"2007_01\nB\xe4r\n", "is not UTF-8 text; save it as UTF-8"),
    ],
)
def test_a_list_that_is_none(tmp_path, text, message):
    listing = f"{voc.VOC}/ImageSets/Segmentation/train.txt"
    files = devkit()
    good, files[listing] = files[listing], text
    with pytest.raises(UserError, match=f"the list {listing}:? {message}") as caught:
        get("voc2012", tmp_path / "data", write_mirror(tmp_path / "mirror", {TAR: files}))
    assert "in the archive, and run `bcd fetch voc2012` again" in str(caught.value)
    files[listing] = good
    assert get("voc2012", tmp_path / "data", write_mirror(tmp_path / "mirror", {TAR: files})).splits["train"] == 2


def test_a_list_with_a_byte_order_mark_and_windows_lines(tmp_path):
    listing = f"{voc.VOC}/ImageSets/Segmentation/train.txt"
    files = devkit()
    files[listing] = b"\xef\xbb\xbf" + files[listing].replace(b"\n", b"\r\n")
    found = get("voc2012", tmp_path / "data", write_mirror(tmp_path / "mirror", {TAR: files}))
    assert found.splits["train"] == 2


def test_other_values_are_refused():
    with pytest.raises(UserError, match=r"mask m\.png holds the value 21, which has no class"):
        voc.read_label(png(spread(0, 254, 21)), "m.png")
    with pytest.raises(UserError, match=r"m\.mat has no readable label map GTcls\.Segmentation"):
        voc.read_label(mat(GTinst={"Segmentation": spread(0)}), "m.mat")


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/mirror")
def test_the_real_sample(tmp_path):
    found = get("voc2012", tmp_path, REAL)
    assert (found.origin, found.official) == ("mirror", False)
    for split in voc.SPLITS:
        part = opened("voc2012", tmp_path, split)
        assert len(part) == found.splits[split]
        for index, sample in enumerate(part.samples):
            label = part.read(index)[1]
            # The bounding boxes of the same image name the same classes.
            boxes = found.read(f"{voc.VOC}/Annotations/{sample.name}.xml").decode()
            assert any(f"<name>{name}</name>" in boxes for name in _classes(label)), sample.name


def _classes(label):
    names = params("voc2012").classes
    return [names[value] for value in np.unique(label) if 0 < value < 255]


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/mirror")
def test_the_real_sample_with_objects(tmp_path):
    """Masks that labelme wrote in the layout of VOC; its list of val is empty."""
    archive = Archive(archive="voc2012_labelme/VOC2012_labelme_instance.tar", url=None)
    source = Source(
        "labelme",
        (archive,),
        "",
        "",
        look_of(voc),
        {"train": 1464, "val": 1449},
    )
    found = fetch(source, tmp_path, REAL)
    for sample in voc.samples(tree.recorded(tmp_path), "train"):
        label = voc.read_label(found.read(sample.label), sample.label)
        assert set(np.unique(label)) - {0, 255}


def test_official_bytes_without_sbd_are_no_sample(tmp_path):
    mirror = write_mirror(tmp_path / "mirror", {TAR: devkit()})
    sha256 = hashlib.sha256((mirror / TAR).read_bytes()).hexdigest()
    archives = (Archive(archive=TAR, url=None, sha256=sha256), Archive(archive=TGZ, url=None, optional=True))
    source = Source(
        "voc2012",
        archives,
        "",
        "",
        look_of(voc),
        {"train": 10582, "val": 1449},
    )
    with pytest.raises(UserError, match=r"voc2012 has the splits .*'train': 2.*10582.*; complete the archives"):
        fetch(source, tmp_path / "data", mirror)
