"""What is remembered of source files between processes."""

import hashlib
import json

import pytest

from bcd.runs import code, source

RUN = ("semantic", "scenes", ("kd",))
LINE = "from bcd.losses.kd import kd as loss\nx = 1\n"


@pytest.fixture(name="memory")
def memory_fixture(tmp_path):
    known = source.Known(tmp_path)
    known.parse(LINE, "bcd.train")
    known.keep()
    (file,) = tmp_path.glob("__pycache__/*.json")
    return file


def test_what_was_parsed_is_not_parsed_again(memory, monkeypatch):
    expected = source.parse(LINE, "bcd.train")
    monkeypatch.setattr(source, "parse", None)
    assert source.Known(memory.parents[1]).parse(LINE, "bcd.train") == expected
    with pytest.raises(TypeError):
        source.Known(memory.parents[1]).parse(f"{LINE}y = 2\n", "bcd.train")


def test_another_version_of_the_parser_parses_again(memory, monkeypatch):
    monkeypatch.setattr(source, "_this", lambda: "another")
    monkeypatch.setattr(source, "parse", None)
    with pytest.raises(TypeError):
        source.Known(memory.parents[1]).parse(LINE, "bcd.train")


SEALED = json.dumps({"parts": [], "sha256": hashlib.sha256(b"[]").hexdigest()})


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"parts": {}}', '{"parts": {"a": 3}, "sha256": "0"}', SEALED, "[" * 5000]
)
def test_a_memory_of_another_shape_is_none_and_is_made_again(memory, content):
    memory.write_text(content)
    known = source.Known(memory.parents[1])
    assert known.parse(LINE, "bcd.train") == source.parse(LINE, "bcd.train")
    known.keep()
    assert json.loads(memory.read_text())["parts"]


def test_a_changed_memory_is_none(memory):
    form = source.parse(LINE, "bcd.train")[""].form
    memory.write_text(memory.read_text().replace(form, form[::-1]))
    assert source.Known(memory.parents[1]).parse(LINE, "bcd.train")[""].form == form


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path):
    (tmp_path / "__pycache__").write_text("a file stands where the folder should")
    known = source.Known(tmp_path)
    assert known.parse(LINE, "bcd.train")
    known.keep()
    assert known.parse(LINE, "bcd.train")


def test_the_hashes_of_a_run_are_the_same_with_and_without_a_memory():
    first = code.fingerprints(*RUN)
    code.forget()
    assert code.fingerprints(*RUN) == first
