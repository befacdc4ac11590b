import json
import resource
import subprocess
import sys

import pytest

from bcd.data.acquire import manifest
from bcd.errors import UserError
from bcd.files import atomic_write

FIELDS = {
    "dataset": "toy",
    "origin": "generated",
    "official": True,
    "licence": "none",
    "source": "here",
    "request": {"seed": 1},
    "splits": {"train": 2},
    "split_sha256": {"train": "0" * 64},
}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "toy"
    (root / "images").mkdir(parents=True)
    (root / "images" / "b.bin").write_bytes(b"bb")
    (root / "images" / "a, ä.bin").write_bytes(b"a")
    manifest.write(root, FIELDS)
    return root


def test_manifest_is_the_documented_json(root):
    fields = json.loads((root / "manifest.json").read_bytes())
    assert fields == FIELDS | {
        "note": "",
        "archives": [],
        "check": {},
        "files": 2,
        "files_sha256": fields["files_sha256"],
    }
    lines = (root / "files.csv").read_text().splitlines()
    assert lines[0] == "path,bytes,sha256"
    assert [line.rsplit(",", 1)[0] for line in lines[1:]] == ['"images/a, ä.bin",1', "images/b.bin,2"]


def test_round_trip_and_reading(root):
    loaded = manifest.load(root)
    assert (loaded.dataset, loaded.request, loaded.splits) == ("toy", {"seed": 1}, {"train": 2})
    assert list(loaded.files) == ["images/a, ä.bin", "images/b.bin"]
    assert loaded.read("images/a, ä.bin") == b"a"
    assert manifest.verify(root) == loaded


def test_bytes_depend_on_the_dataset_alone(root, tmp_path):
    other = tmp_path / "elsewhere" / "toy"
    (other / "images").mkdir(parents=True)
    (other / "images" / "a, ä.bin").write_bytes(b"a")
    (other / "images" / "b.bin").write_bytes(b"bb")
    for stray in (".lock", "archives/old.zip", ".unpack-1/x"):
        (other / stray).parent.mkdir(exist_ok=True)
        (other / stray).write_bytes(b"?")
    again = manifest.write(other, dict(reversed(FIELDS.items())))
    assert again.sha256 == manifest.load(root).sha256
    assert (other / "manifest.json").read_bytes() == (root / "manifest.json").read_bytes()


def test_any_change_shows_in_the_hash(root):
    before = manifest.load(root).sha256
    (root / "images" / "b.bin").write_bytes(b"bx")
    assert manifest.write(root, FIELDS).sha256 != before


@pytest.mark.parametrize("data", [b"bx", b"b", b""])
def test_altered_file_is_refused(root, data):
    (root / "images" / "b.bin").write_bytes(data)
    with pytest.raises(UserError, match=r"images/b\.bin differs .*`bcd fetch toy --force`"):
        manifest.load(root).read("images/b.bin")
    with pytest.raises(UserError, match=r"images/b\.bin differs"):
        manifest.verify(root)


def test_missing_and_unlisted_files_are_refused(root):
    (root / "images" / "b.bin").unlink()
    loaded = manifest.load(root)
    with pytest.raises(UserError, match=r"b\.bin is missing.*bcd fetch toy"):
        loaded.read("images/b.bin")
    with pytest.raises(UserError, match=r"x\.bin is not in .*files\.csv; run `bcd fetch toy --accept`"):
        loaded.read("images/x.bin")
    assert not loaded.sizes_match()


def test_a_folder_in_the_place_of_a_file_is_one_sentence(root):
    (root / "images" / "b.bin").unlink()
    (root / "images" / "b.bin").mkdir()
    with pytest.raises(UserError, match=r"b\.bin cannot be read \(Is a directory\)"):
        manifest.load(root).read("images/b.bin")


@pytest.mark.parametrize("name", ["manifest.json", "files.csv"])
def test_missing_manifest_names_the_remedy(root, name):
    (root / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing; run `bcd fetch toy`"):
        manifest.load(root)


def test_edited_listing_and_damaged_manifest_are_refused(root):
    listing = root / "files.csv"
    listing.write_text(listing.read_text() + "extra,1,0\n")
    with pytest.raises(UserError, match=r"files\.csv is not the file"):
        manifest.load(root)
    for damage in (b"", b"[]", b"{}", b"\xff"):
        (root / "manifest.json").write_bytes(damage)
        with pytest.raises(UserError, match=r"manifest\.json is not a manifest"):
            manifest.load(root)


@pytest.mark.parametrize("change", [{"origin": "moon"}, {"extra": 1}])
def test_unknown_fields_are_a_bug_of_the_caller(root, change):
    with pytest.raises(ValueError, match="manifest needs the fields"):
        manifest.write(root, FIELDS | change)


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "x.txt"
    atomic_write(path, "ä")
    atomic_write(path, b"2")
    assert path.read_bytes() == b"2"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_atomic_write_on_a_full_disk_keeps_the_old_bytes(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    code = (
        "import sys; from pathlib import Path; from bcd.files import atomic_write\n"
        "atomic_write(Path(sys.argv[1]), bytes(1 << 20))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert f"UserError: disk full while writing {path}; free space" in result.stderr
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write .*file/x"):
        atomic_write(tmp_path / "file" / "x", b"")
