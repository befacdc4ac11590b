import numpy as np
import pytest
from support.dataset_layouts import get, opened, params, photo, png, spread, used, write_mirror

from bcd.data.formats import cityscapes
from bcd.data.semantic.split import open_split
from bcd.errors import UserError

IMAGES, MASKS = "cityscapes/leftImg8bit_trainvaltest.zip", "cityscapes/gtFine_trainvaltest.zip"
FRAMES = {"train": ["bochum/bochum_000000_000313", "aachen/aachen_000000_000019"], "val": ["ulm/ulm_000000_000019"]}


def archives():
    readme = {"README": b"", "license.txt": b""}  # in both archives
    images, masks = dict(readme), dict(readme)
    for split, frames in FRAMES.items():
        for frame in frames:
            images[f"leftImg8bit/{split}/{frame}_leftImg8bit.png"] = photo("PNG")
            masks[f"gtFine/{split}/{frame}_gtFine_labelIds.png"] = png(spread(*range(34)))
            for kind in ("color.png", "instanceIds.png", "polygons.json"):
                masks[f"gtFine/{split}/{frame}_gtFine_{kind}"] = b""
    return {IMAGES: images | {"leftImg8bit/test/b/b_0_0_leftImg8bit.png": b""}, MASKS: masks}


def test_the_official_layout(tmp_path):
    found = get("cityscapes", tmp_path / "data", write_mirror(tmp_path / "mirror", archives()))
    assert found.splits == {"train": 2, "val": 1}
    assert "sample: 2 of 2975 train, 1 of 500 val images" in found.note
    train = opened("cityscapes", tmp_path / "data", "train")
    assert [sample.name for sample in train.samples] == ["aachen_000000_000019", "bochum_000000_000313"]
    expected = np.full(34, 255)
    expected[[7, 8, 11, 12, 13, 17]] = range(6)
    expected[19:29] = range(6, 16)
    expected[31:34] = 16, 17, 18
    np.testing.assert_array_equal(train.read(0)[1].ravel()[:34], expected)


def test_few_images_of_a_split_and_none(tmp_path):
    root = tmp_path / "data"
    get("cityscapes", root, write_mirror(tmp_path / "mirror", archives()))
    few = open_split(root, used(params("cityscapes"), images=1), "train")
    assert [sample.name for sample in few.samples] == ["aachen_000000_000019"]
    with pytest.raises(UserError, match="the split 'test' is empty; run `bcd fetch cityscapes --force`"):
        opened("cityscapes", root, "test")


@pytest.mark.parametrize(
    ("archive", "lost", "message"),
    [
        (
            IMAGES,
            "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png",
            "has no image leftImg8bit/val/ulm/",
        ),
        (
            MASKS,
            "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
            "image .*/aachen_000000_000019_leftImg8bit.png has no mask gtFine/train/aachen/aachen_000000_000019_gtFine",
        ),
        (
            IMAGES,
            "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
            "mask .*aachen_000000_000019_gtFine_labelIds.png has no image leftImg8bit/train/aachen/aachen_000000",
        ),
    ],
)
def test_a_missing_file_is_named(tmp_path, archive, lost, message):
    files = archives()
    del files[archive][lost]
    with pytest.raises(UserError, match=message):
        get("cityscapes", tmp_path / "data", write_mirror(tmp_path / "mirror", files))


def test_an_id_that_does_not_exist():
    with pytest.raises(UserError, match=r"mask m\.png holds the value 34, which has no class"):
        cityscapes.read_label(png(spread(33, 34)), "m.png")


def test_without_archives_it_says_what_to_place_where(tmp_path):
    with pytest.raises(UserError) as error:
        get("cityscapes", tmp_path / "data", None)
    for word in (IMAGES, MASKS, "after registration", str(tmp_path / "data" / "archives"), "--mirror DIR"):
        assert word in str(error.value)


def test_placed_archives_must_be_the_official_ones(tmp_path):
    mirror = write_mirror(tmp_path / "mirror", archives())
    (tmp_path / "data").mkdir()
    (mirror / "cityscapes").rename(tmp_path / "data" / "archives")
    with pytest.raises(UserError, match=r"leftImg8bit_trainvaltest\.zip is not the official file"):
        get("cityscapes", tmp_path / "data", None)
