"""Files: written whole or not at all, swept after killed writers, locked, and named where the system refuses them."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from support.project import kill

from bcd import files
from bcd.errors import UserError
from bcd.files import alone, atomic_write, locked, read_bytes, read_text, sha256_file, sweep, write_together

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


@pytest.mark.parametrize("fatal", [1, 2, 3])
def test_files_that_belong_together_are_never_of_two_writes(tmp_path, in_child, monkeypatch, fatal):
    """Killed before the first rename, between the two, and after both."""
    weights, beside = tmp_path / "a.onnx", tmp_path / "a.onnx.json"
    write_together({weights: b"old", beside: "of old"})
    renames = count(1)

    def replaced(source, target):
        if next(renames) == fatal:
            kill(os.getpid())
        os.rename(source, target)

    def written():
        monkeypatch.setattr(files.os, "replace", replaced)
        write_together({weights: b"new", beside: "of new"})
        replaced("", "")

    _, wait = in_child(written)
    assert wait() == -signal.SIGKILL
    found = beside.read_text() if beside.exists() else None
    assert (weights.read_text(), found) == [("old", None), ("new", None), ("new", "of new")][fatal - 1]
    write_together({weights: b"newer", beside: "of newer"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.onnx": "newer", "a.onnx.json": "of newer"
    }  # fmt: skip


def test_files_that_cannot_all_be_written_stay_what_they_were(tmp_path):
    weights, beside = tmp_path / "a.onnx", tmp_path / "a.onnx.json"
    write_together({weights: b"old", beside: "of old"})
    with pytest.raises(TypeError):
        write_together({weights: b"new", beside: 3})
    assert (weights.read_text(), beside.read_text(), len(list(tmp_path.iterdir()))) == ("old", "of old", 2)


def test_what_is_held_alone_is_free_once_its_holder_is_gone(tmp_path, in_child):
    path = tmp_path / "deep" / "a.onnx"
    with alone(path, "busy"), pytest.raises(UserError, match="^busy$"), alone(path, "busy"):
        pass
    assert not list(path.parent.iterdir())

    def killed():
        with alone(path, "busy"):
            kill(os.getpid())

    _, wait = in_child(killed)
    assert wait() == -signal.SIGKILL and list(path.parent.iterdir())
    with alone(path, "busy"):
        atomic_write(path, "whole")  # its sweep leaves the lock of a living holder
        with pytest.raises(UserError, match="^busy$"), alone(path, "busy"):
            pass
    assert list(path.parent.iterdir()) == [path]


def test_one_of_many_holds_a_path_alone(tmp_path, in_child):
    def held() -> None:
        for _ in range(50):
            try:
                with alone(tmp_path / "a", "busy"):
                    os.close(os.open(tmp_path / "inside", os.O_CREAT | os.O_EXCL))  # fails where another one is inside
                    (tmp_path / "inside").unlink()
            except UserError:
                pass

    waits = [in_child(held)[1] for _ in range(4)]
    assert [wait() for wait in waits] == [0] * 4
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "tables").touch()
    path, said = (
        tmp_path / "tables" / "a.md",
        r"a\.md .*\(.*tables is a file and no folder\); move it away$",
    )
    for refused in (lambda: atomic_write(path, "text"), lambda: read_text(path), lambda: hold(path)):
        with pytest.raises(UserError, match=said):
            refused()


def hold(path: Path) -> None:
    with alone(path, "busy"):
        pass


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
        tmp_path / "file" / "below": "cannot be read .*file is a file and no folder",
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
