import numpy as np
import pytest
from support.dataset_layouts import REAL, get, opened, params, photo, png, spread, write_mirror

from bcd.data.formats import ade20k
from bcd.errors import UserError

ZIP = "ade20k/ADEChallengeData2016.zip"
FOLDER = "ADEChallengeData2016"


def archive():
    files = {}
    for folder, name in (("training", "ADE_train_2"), ("training", "ADE_train_1"), ("validation", "ADE_val_1")):
        files[f"{FOLDER}/images/{folder}/{name}.jpg"] = photo()
        files[f"{FOLDER}/annotations/{folder}/{name}.png"] = png(spread(0, 1, 150))
    return files


def test_the_official_layout(tmp_path):
    found = get("ade20k", tmp_path / "data", write_mirror(tmp_path / "mirror", {ZIP: archive()}))
    assert found.splits == {"train": 2, "val": 1}
    train = opened("ade20k", tmp_path / "data", "train")
    assert [sample.name for sample in train.samples] == ["ADE_train_1", "ADE_train_2"]
    np.testing.assert_array_equal(train.read(0)[1].ravel()[:3], [255, 0, 149])


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (f"{FOLDER}/images/training/ADE_train_2.jpg", r"mask .*ADE_train_2\.png has no image .*ADE_train_2\.jpg"),
        (f"{FOLDER}/annotations/validation/ADE_val_1.png", r"image .*ADE_val_1\.jpg has no mask .*ADE_val_1\.png"),
    ],
)
def test_a_missing_file_is_named(tmp_path, lost, message):
    files = archive()
    del files[lost]
    with pytest.raises(UserError, match=message):
        get("ade20k", tmp_path / "data", write_mirror(tmp_path / "mirror", {ZIP: files}))


def test_another_layout_is_refused(tmp_path):
    files = {path.replace(FOLDER, "ADE20K"): data for path, data in archive().items()}
    with pytest.raises(UserError, match=r"has the splits \{'train': 0, 'val': 0\}"):
        get("ade20k", tmp_path / "data", write_mirror(tmp_path / "mirror", {ZIP: files}))


def test_a_value_above_150_is_refused():
    with pytest.raises(UserError, match="holds the value 151"):
        ade20k.read_label(png(spread(0, 151)), "m.png")


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/mirror")
def test_the_real_sample(tmp_path):
    found = get("ade20k", tmp_path, REAL)
    assert (found.origin, found.official) == ("mirror", False)
    rows = found.read(f"{FOLDER}/objectInfo150.txt").decode().splitlines()[1:]
    official = [row.split("\t")[-1].split(",")[0].strip() for row in rows]
    assert params("ade20k").classes == official
    for split in ade20k.SPLITS:
        part = opened("ade20k", tmp_path, split)
        assert len(part) == found.splits[split]
        for index, sample in enumerate(part.samples):
            assert (part.read(index)[1] < 150).any(), sample.name
