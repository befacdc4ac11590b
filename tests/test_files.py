"""Files that are written whole or not at all, and what killed writers leave behind."""

import os
import signal
import subprocess
import sys

import pytest

from bcd.files import atomic_write, sweep

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
