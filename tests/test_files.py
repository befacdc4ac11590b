"""Files: written whole or not at all, swept after killed writers, locked, and named where the system refuses them."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys

import pytest

from bcd.errors import UserError
from bcd.files import atomic_write, locked, read_bytes, read_text, sha256_file, sweep

# Killed where the file is whole but not yet renamed, as by the machine's power.
KILLED = """
import os, signal, sys
from pathlib import Path
from bcd import files
files.os.replace = lambda *_: {end}
files.atomic_write(Path(sys.argv[1]) / "a.json", "half")
"""


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def start(folder, end):
    return subprocess.Popen(
        [sys.executable, "-c", KILLED.format(end=end), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_what_a_killed_writer_left_is_swept_by_the_next_in_that_folder(tmp_path):
    killed = start(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.wait() == -signal.SIGKILL and len(leftovers(tmp_path)) == 1
    atomic_write(tmp_path / "b.json", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_the_file_of_a_living_writer_is_left_until_it_dies(tmp_path):
    living = start(tmp_path, 'print("there", flush=True) or input()')
    with living:
        assert living.stdout.readline() == b"there\n"
        (temporary,) = leftovers(tmp_path)
        sweep(tmp_path)
        atomic_write(tmp_path / "b.json", "whole")
        assert leftovers(tmp_path) == [temporary]
        living.kill()
    sweep(tmp_path)
    assert not leftovers(tmp_path)


def test_only_files_that_are_named_as_ours_are_swept(tmp_path):
    others = [".b.json.tmp", ".b.0123456.tmp", "b.01234567.tmp", ".b.json.0123456g.tmp", ".b.json.01234567.tmp.part"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".a.json.01234567.tmp").touch()
    (tmp_path / ".folder.01234567.tmp").mkdir()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, ".folder.01234567.tmp"])


def test_many_writers_and_sweepers_of_one_folder_lose_nothing(tmp_path, in_child):
    def write(name: str) -> None:
        for number in range(60):
            atomic_write(tmp_path / name, f"{number}")

    children = [in_child(lambda name=name: write(name)) for name in ("a", "b", "a", "c")]
    assert [wait() for _, wait in children] == [0] * 4
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys("abc", "59")


def test_a_failed_write_leaves_the_old_bytes_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    atomic_write(path, "old")
    with pytest.raises(TypeError):
        atomic_write(path, 3)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


READERS = [read_bytes, read_text, sha256_file]


@pytest.fixture
def places(tmp_path):
    """Paths that cannot be read as files, and what is said of each."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    return {
        tmp_path / "folder": "cannot be read .Is a directory",
        tmp_path / "file" / "below": "cannot be read .Not a directory",
        tmp_path / "loop": "cannot be read .Too many levels",
        tmp_path / ("x" * 300): "cannot be read .File name too long",
        tmp_path / "absent": "is missing; ",
    }


@pytest.mark.parametrize("read", READERS)
def test_what_cannot_be_read_is_named(places, read):
    for path, said in places.items():
        with pytest.raises(UserError, match=f"^{path} {said}"):
            read(path)


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"d\xc3\xa9j\xc3\xa0\r\n")
    assert read_text(path) == "déjà\r\n"
    path.write_bytes(b"d\xe9j\xe0")
    with pytest.raises(UserError, match=f"^{path} is not UTF-8 text; save it as UTF-8"):
        read_text(path)


@pytest.mark.parametrize("write", [lambda path: atomic_write(path, "x"), lambda path: locked(path).__enter__()])
def test_what_cannot_be_written_is_named(tmp_path, places, write):
    for path in [path for path in places if path.name not in ("absent", "loop")]:
        with pytest.raises(UserError, match=f"^cannot write {path} "):
            write(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "loop"]


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path):
    path = tmp_path / "new" / "lock"
    code = (
        "import sys, pathlib, bcd.files\n"
        "with bcd.files.locked(pathlib.Path(sys.argv[1])): print(1, flush=True); input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"1\n"
    with pytest.raises(UserError, match=f"{{x}} is held by {holder.pid}"), locked(path, "{x} is held by PID"):
        pass
    holder.kill()
    holder.communicate()
    with locked(path, "held"), pytest.raises(UserError, match=f"held by {os.getpid()}"), locked(path, "held by PID"):
        pass


def test_a_lock_on_a_full_disk_names_its_file(tmp_path, in_child):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        with (
            pytest.raises(UserError, match=f"disk full while writing {tmp_path / 'lock'}; free"),
            locked(tmp_path / "lock"),
        ):
            pass

    assert in_child(full)[1]() == 0
    with locked(tmp_path / "lock", "busy PID"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_file_system_without_locks_has_a_remedy(tmp_path, monkeypatch):
    """What such a file system answers; there is none here to try."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=f"^{tmp_path / 'lock'} cannot be locked .* mount it with locks"):
        locked(tmp_path / "lock", "held").__enter__()
