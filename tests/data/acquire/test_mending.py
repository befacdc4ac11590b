"""Data that the user mends: what he changed is taken over by the command that the message names, or nothing is lost."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from support.dataset_layouts import lines, pack, photo, png
from support.project import run
from support.suite_results import finished_fixture, load, project_fixture  # noqa: F401

from bcd.config.schema.data import Archive, Dataset
from bcd.data.acquire import manifest
from bcd.data.acquire.obtain import accepted, obtain, verified
from bcd.errors import UserError
from bcd.runs.expand import suite_runs
from bcd.runs.status import Verdict, judge_all

TOP = "VOCdevkit/VOC2012"
VAL, SIZE = f"{TOP}/SegmentationClass/c.png", (6, 8)


def ponds(train=2, archives=("toy/toy.zip",)):
    fields = {"format": "voc", "classes": ["background", "pond"], "licence": "none", "source": "here"}
    listed = [Archive(archive=name, url=None) for name in archives]
    return Dataset(splits={"train": train, "val": 1}, archives=listed, **fields)


def label(value):
    found = np.zeros(SIZE)
    found[:3] = value
    return png(found)


def files(names="ab", value=1):
    """Training images of these names and one for validation, half of whose mask holds `value`."""
    found = {f"{TOP}/ImageSets/Segmentation/{split}.txt": lines(*on) for split, on in (("train", names), ("val", "c"))}
    for name in (*names, "c"):
        found[f"{TOP}/JPEGImages/{name}.jpg"] = photo()
        found[f"{TOP}/SegmentationClass/{name}.png"] = label(value if name == "c" else 1)
    return found


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data/toy"
    pack(root / "archives/toy.zip", files())
    get(root)
    return root


def get(root, params=None, **options):
    return obtain("toy", params or ponds(), root, mirror_dir=None, **options)


def test_a_mended_mask_is_taken_over_and_said(root):
    before = manifest.load(root)
    (root / VAL).write_bytes(png(np.ones(SIZE)))
    with pytest.raises(UserError, match=r"c\.png differs from what files\.csv records; run `bcd fetch toy --accept`"):
        before.read(VAL)
    after = accepted("toy", ponds(), root)
    assert manifest.load(root) == after == get(root) and after.read(VAL) == png(np.ones(SIZE))
    assert after.split_sha256["train"] == before.split_sha256["train"]
    assert after.split_sha256["val"] != before.split_sha256["val"]
    assert after.check["splits"]["val"]["labels"]["classes"] == {"background": [0, 0], "pond": [1, 48]}
    assert (after.official, after.note) == (False, f"{before.note}; changed by hand")
    assert accepted("toy", ponds(), root) == after  # nothing else has changed


def test_only_a_forced_fetch_overwrites_what_was_mended(root):
    (root / VAL).write_bytes(png(np.ones((60, 80))))  # of another number of bytes, which a plain fetch notices
    with pytest.raises(UserError, match=r"c\.png differs .* --accept` .* --force`"):
        get(root)
    (root / VAL).write_bytes(png(np.ones(SIZE)))
    accepted("toy", ponds(), root)
    (root / TOP / "JPEGImages/a.jpg").unlink()
    with pytest.raises(UserError, match="holds files changed by hand.*`bcd fetch toy --force`"):
        get(root)
    assert (root / VAL).read_bytes() == png(np.ones(SIZE))
    assert "changed by hand" not in get(root, force=True).note and (root / VAL).read_bytes() == label(1)


def test_only_what_can_be_used_is_taken_over(root):
    (root / VAL).write_bytes(label(7))
    before = manifest.load(root)
    with pytest.raises(UserError, match="holds the value 7"):
        accepted("toy", ponds(), root)
    (root / VAL).write_bytes(label(1))
    (root / TOP / "ImageSets/Segmentation/train.txt").write_bytes(lines("a"))
    with pytest.raises(UserError, match="'train': 1.*says.*'train': 2.*or correct `splits`"):
        accepted("toy", ponds(), root)
    assert manifest.load(root) == before
    assert accepted("toy", ponds(train=1), root).splits == {"train": 1, "val": 1}


def test_a_replaced_archive_is_noticed_and_unpacked(root):
    before = manifest.load(root)
    pack(root / "archives/toy.zip", files("abd"))
    with pytest.raises(UserError, match=r"archives/toy\.zip is not the one that was unpacked; run `bcd fetch toy`"):
        verified("toy", ponds(), root)
    with pytest.raises(UserError, match="has the splits .*'train': 3.*says .*'train': 2.*or correct `splits`"):
        get(root)
    assert manifest.load(root) == before
    after = get(root, ponds(train=3))
    assert after.splits == {"train": 3, "val": 1} and verified("toy", ponds(train=3), root) == after
    assert after.split_sha256["val"] == before.split_sha256["val"]


def test_a_mask_mended_in_the_archive_changes_only_its_split(root):
    before = manifest.load(root).split_sha256
    pack(root / "archives/toy.zip", files(value=0))
    after = get(root).split_sha256
    assert before["train"] == after["train"] and before["val"] != after["val"]


def test_an_archive_that_is_gone_is_not_missed(root):
    (root / "archives/toy.zip").unlink()
    assert get(root) == manifest.load(root) == verified("toy", ponds(), root)


def test_files_without_an_archive_say_how_to_pack_them(tmp_path):
    with pytest.raises(UserError, match=r"toy has no archives; name the folder .* pack them into toy\.zip.*url: null"):
        get(tmp_path / "data/toy", ponds(archives=()))


def test_names_of_another_unicode_form_are_told_apart(tmp_path):
    composed, apart = "\u00dcberlauf", "U\u0308berlauf"
    found = files("a")
    found[f"{TOP}/ImageSets/Segmentation/train.txt"] = lines("a", composed)
    found[f"{TOP}/JPEGImages/{composed}.jpg"] = photo()
    found[f"{TOP}/SegmentationClass/{apart}.png"] = label(1)
    pack(tmp_path / "toy/archives/toy.zip", found)
    with pytest.raises(UserError, match="has no mask .*another Unicode form .*NFC or NFD"):
        get(tmp_path / "toy")


def test_an_address_that_is_a_path_says_where_the_archive_goes():
    for url in ("/home/me/toy.zip", "file:///toy.zip", "toy.zip", "ftp://x/toy.zip"):
        with pytest.raises(
            ValueError, match="is no address of the web; write null, and put the archive in place by hand"
        ):
            Archive(archive="toy/toy.zip", url=url)


def bcd(*arguments):
    return run(sys.executable, "-m", "bcd.cli", *arguments, cwd=Path(), check=False)


def verdicts():
    return {one.verdict for one in judge_all("smoke", suite_runs(*load()).values()).values()}


def test_each_remedy_of_a_mended_mask_works_to_the_end(project):
    """Of the two commands in the message, the first takes the mask over and no run trains; the second restores it."""
    path = Path("data/scenes-smoke/labels/test/00000.png")
    original = path.read_bytes()
    path.write_bytes(path.with_name("00001.png").read_bytes())
    said = bcd("check", "scenes-smoke-few")  # a variant has the files of another dataset
    assert said.returncode == 2 and "00000.png differs" in said.stdout
    take, restore = re.findall(r"`bcd (fetch scenes-smoke --\w+)`", said.stdout)[:2]
    taken = bcd(*take.split())
    assert taken.returncode == 0 and "changed by hand" in taken.stdout
    assert verdicts() == {Verdict.STORED}
    assert bcd(*restore.split()).returncode == 0 and path.read_bytes() == original
    assert verdicts() == {Verdict.DONE}
