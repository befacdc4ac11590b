"""What the system refuses is a sentence that names the file, for readers, writers and locks alike."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from bcd.errors import UserError
from bcd.files import atomic_write, locked, read_bytes, read_text, sha256_file

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


def test_a_file_system_without_locks_has_a_remedy(tmp_path, monkeypatch):
    """What such a file system answers; there is none here to try."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=f"^{tmp_path / 'lock'} cannot be locked .* mount it with locks"):
        locked(tmp_path / "lock", "held").__enter__()
