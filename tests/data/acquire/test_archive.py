import io
import random
import shutil
import stat
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcd.data.acquire.archive import unpack
from bcd.errors import UserError

CONTENT = {"top/a.txt": b"a" * 2000, "top/sub/b.bin": random.Random(1).randbytes(3000), "other.txt": b"o"}
KINDS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")


def pack(kind, content=CONTENT):
    """Bytes of an archive with these members, a list of pairs or a dict."""
    buffer = io.BytesIO()
    pairs = list(content.items() if isinstance(content, dict) else content)
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in pairs:
                file.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    else:
        with tarfile.open(fileobj=buffer, mode=f"w:{kind.partition('.')[2]}") as file:
            for name, data in pairs:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def unpacked(tmp_path, kind, data, **options):
    archive, target = tmp_path / f"x.{kind}", tmp_path / "out"
    archive.write_bytes(data)
    target.mkdir(exist_ok=True)
    files = unpack(archive, target, **options)
    return {file.path: (target / file.path).read_bytes() for file in files}


def tree(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


@pytest.mark.parametrize("kind", KINDS)
def test_unpacks_what_was_packed(tmp_path, kind):
    assert unpacked(tmp_path, kind, pack(kind)) == CONTENT


def test_an_ending_in_capitals_is_an_ending(tmp_path):
    assert unpacked(tmp_path, "ZIP", pack("zip")) == CONTENT


@pytest.mark.parametrize("wrapper", ["", "repo-123/"])
def test_keep_takes_one_directory_at_the_root_or_one_level_down(tmp_path, wrapper):
    data = pack("zip", {wrapper + name: content for name, content in CONTENT.items()})
    assert unpacked(tmp_path, "zip", data, keep="top").keys() == {"top/a.txt", "top/sub/b.bin"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("wrapper", ["", "repo-123/"])
def test_keep_takes_several_folders_and_files(tmp_path, kind, wrapper):
    data = pack(kind, {wrapper + name: content for name, content in (CONTENT | {"topmost/x": b"x"}).items()})
    assert unpacked(tmp_path, kind, data, keep=["top/sub", "other.txt"]).keys() == {"top/sub/b.bin", "other.txt"}


def test_one_of_several_kept_paths_is_enough_as_samples_may_lack_a_split(tmp_path):
    assert unpacked(tmp_path, "zip", pack("zip"), keep=["top/sub", "top/nothing"]).keys() == {"top/sub/b.bin"}
    with pytest.raises(UserError, match="no file below nothing or none"):
        unpacked(tmp_path, "zip", pack("zip"), keep=["nothing", "none"])


def test_keep_without_a_member_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no file below nothing.*; mend it"):
        unpacked(tmp_path, "zip", pack("zip"), keep="nothing", remedy="mend it")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/tmp/evil", "C:/evil", "C:\\evil", "..\\evil", "a\nb", "x" * 256, ""],
)
def test_unsafe_names_are_refused_before_anything_is_written(tmp_path, kind, name):
    with pytest.raises(UserError, match="unsafe name"):
        unpacked(tmp_path, kind, pack(kind, {"good.txt": b"", name: b"x"}))
    assert tree(tmp_path / "out") == []


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_tar_links_and_devices_are_refused(tmp_path, kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("good.txt"))
        info = tarfile.TarInfo("bad")
        info.type, info.linkname = kind, "good.txt"
        file.addfile(info)
    with pytest.raises(UserError, match="'bad' is a link or special file"):
        unpacked(tmp_path, "tar", buffer.getvalue())
    assert tree(tmp_path / "out") == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_zip_links_and_devices_are_refused(tmp_path, kind):
    info = zipfile.ZipInfo("bad")
    info.external_attr = (kind | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="'bad' is a link or special file"):
        unpacked(tmp_path, "zip", buffer.getvalue())


def test_encrypted_zip_is_refused(tmp_path):
    data = bytearray(pack("zip", {"a": b"secret"}))
    central = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[central + 8] |= 1
    with pytest.raises(UserError, match="'a' is encrypted"):
        unpacked(tmp_path, "zip", bytes(data))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a/b", "a//b")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_path_are_refused(tmp_path, kind, names):
    with pytest.raises(UserError, match="another member has the same path"):
        unpacked(tmp_path, kind, pack(kind, [(name, b"x") for name in names]))


def test_crc_error_names_the_member(tmp_path):
    data = bytearray(pack("zip", {"first": b"1", "second": b"2" * 9}))
    crc = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1) + 16
    data[crc] ^= 1
    with pytest.raises(UserError, match="x.zip, member 'second': truncated or corrupt"):
        unpacked(tmp_path, "zip", bytes(data))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({24: 5}, r"\(4 bytes of 5\)"),
        ({10: 77}, "compression"),
        ({42: 100}, ""),
        ({9: 8, 46: 0xFF}, "decode"),
    ],
    ids=["size", "method", "offset", "name"],
)
def test_zip_directory_that_lies_about_a_member(tmp_path, changes, message):
    data = bytearray(pack("zip", {"a": b"four"}))
    central = data.index(b"PK\x01\x02")
    for field, value in changes.items():
        data[central + field] = value
    with pytest.raises(UserError, match=f"truncated or corrupt .*{message}"):
        unpacked(tmp_path, "zip", bytes(data))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_truncated_archive_is_an_error(tmp_path_factory, kind, fraction):
    data = pack(kind)
    # A tar ends with zero padding, of which the first block is the end mark.
    end = data.rindex(b"o") + 512 + 512 - data.rindex(b"o") % 512 - 1 if kind == "tar" else len(data)
    with pytest.raises(UserError, match="truncated or corrupt"):
        unpacked(tmp_path_factory.mktemp("cut"), kind, data[: int(fraction * end)])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_archive_is_an_error_or_does_no_harm(tmp_path_factory, kind, where, flip):
    data = bytearray(pack(kind))
    data[int(where * len(data))] ^= flip
    folder = tmp_path_factory.mktemp("bad")
    try:
        unpacked(folder, kind, bytes(data))
    except UserError as error:
        assert "\n" not in str(error)
    assert {path.name for path in folder.iterdir()} == {f"x.{kind}", "out"}


def test_more_bytes_than_the_disk_has_are_refused_before_writing(tmp_path):
    archive, target = tmp_path / "x.tar", tmp_path / "out"
    target.mkdir()
    info = tarfile.TarInfo("huge")
    info.size = shutil.disk_usage(tmp_path).free // 512 * 512 + (1 << 30)
    with open(archive, "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + info.size + 1024)  # a sparse file: all zeros, no blocks
    with pytest.raises(UserError, match=r"needs \d+ bytes but the disk .* free \d+ more bytes"):
        unpack(archive, target)
    assert tree(target) == []
