"""What commands print does nothing to the terminal, in any locale, and never ends in a traceback of printing."""

import ast
import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import ROOT
from support.suite_results import copied, finished_fixture  # noqa: F401

from bcd.cli import terminal
from bcd.cli.entry import main
from bcd.errors import LONGEST, UserError, counted, harmless
from bcd.files import explained

RED = "\x1b[31mred\x1b]0;title\x07\x9b2J\r\u202e"
SHOWN = "\\x1b[31mred\\x1b]0;title\\x07\\x9b2J\\r\\u202e"


@pytest.fixture
def built(tmp_path, finished, monkeypatch):  # noqa: F811
    """A finished project with one table, as the current directory."""
    monkeypatch.chdir(copied(finished, tmp_path / "project"))
    assert status_of(monkeypatch, "tables", "--suite", "smoke", "--table", "few-labels") == 0
    return Path()


def status_of(patch, *command) -> int:
    patch.setattr(sys, "argv", ["bcd", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def bcd(*command, **env) -> subprocess.CompletedProcess:
    """The real command, its output as bytes."""
    words = [sys.executable, "-m", "bcd.cli", *command]
    return subprocess.run(words, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)} | env, check=False)


def test_every_other_character_is_shown_as_its_escape():
    assert harmless(RED) == SHOWN
    assert harmless("\udce9") == "\\udce9"  # a byte of an argument that is not UTF-8
    assert harmless("smoké 9 ± β †\tx\n") == "smoké 9 ± β †\tx\n"


def test_a_sentence_is_one_line_and_no_book():
    assert str(UserError(f"a: {RED}\n  b")) == f"a: {SHOWN} b"
    assert len(str(UserError("x" * 10**6))) < LONGEST + 10


def test_arguments_warnings_and_tracebacks(project, monkeypatch, capfd):
    for command in (
        ["plan", "--suite", RED],
        ["plan", RED],
        [RED],
        ["fetch", RED],
        ["train", RED],
        ["plan", f"--{RED}"],
    ):
        assert status_of(monkeypatch, *command) == 2
    terminal.prepare()
    logging.getLogger("bcd.data").warning("%s", RED)
    terminal.say(RED)
    try:
        raise ValueError(RED)
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    said = capfd.readouterr()
    assert said.err.count("\\x1b[31mred") >= 9 and "Traceback" in said.err
    assert not set("\x1b\x07\x9b\r\u202e") & set(said.out + said.err)


def test_a_table_and_a_manifest_are_shown_harmless(built, monkeypatch, capfd):
    table = Path("results/smoke/tables/few-labels.json")
    content = json.loads(table.read_text())
    content["notes"] = [RED]
    table.write_text(json.dumps(content))
    assert status_of(monkeypatch, "tables", "--suite", "smoke", "--table", "few-labels", "--show") == 0
    manifest = Path("data/scenes-smoke/manifest.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"note": RED}))
    assert status_of(monkeypatch, "plan", "--suite", "smoke") == 0
    said = capfd.readouterr()
    # The note is wrapped to the terminal's width, where a carriage return is a blank.
    assert said.out.count("\\x1b[31mred") == 2
    assert not set("\x1b\x07\x9b\r\u202e") & set(said.out + said.err)


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_any_locale_shows_a_table(built, locale):
    """The table has ± and †, and the suite's file has an accent."""
    suite = Path("params/suites/smoke.yaml")
    suite.write_text(
        suite.read_text(encoding="utf-8").replace("Two steps", "Déjà vu: two steps".replace(":", "")), "utf-8"
    )
    done = bcd("tables", "--suite", "smoke", "--table", "few-labels", "--show", **locale)
    assert done.returncode == 0 and b"mIoU" in done.stdout
    # The one line is about the accent, which the table does not have yet.
    assert done.stderr.count(b"\n") == 1 and done.stderr.startswith(b"bcd: not today's: results/smoke/tables/")


def test_a_closed_pipe_and_a_full_disk_are_no_tracebacks(built):
    command = f"{sys.executable} -m bcd.cli plan --suite smoke"
    for line in (f"{command} | true", f"{command} > /dev/full"):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
    assert "disk full" in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied; mend the path"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", b"a\x1b"), "a\x1b: Too many levels"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/proc/.x.onnx.0a0a0a0a.tmp"), "/proc/x.onnx: No such file"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk full; free space"),
        (UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"), "set LC_ALL=C.UTF-8"),
        (ConnectionResetError("reset"), None),
    ],
)
def test_what_the_system_refuses_is_a_sentence_and_our_bugs_are_not(error, said):
    found = explained(error)
    assert said in found if said else found is None


def test_every_file_is_read_and_written_as_utf_8():
    """Text files are opened with an encoding, or the locale decides what they say."""
    wrong = []
    for path in (ROOT / "bcd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _opens_text(node):
                wrong.append(f"{path}:{node.lineno}")
    assert not wrong


def test_no_sentence_says_the_program_twice():
    """`announce` begins with it."""
    wrong = []
    for path in (ROOT / "bcd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("UserError", "announce", "pick"):
                words = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
                if any(isinstance(word, str) and word.startswith(("bcd ", "bcd:")) for word in words):
                    wrong.append(f"{path}:{node.lineno}")
    assert not wrong


def _opens_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = getattr(getattr(call.func, "value", None), "id", "")
    others = ("Image", "tarfile", "os", "file", "member", "archive")  # which have an `open` of their own
    if name not in ("open", "read_text", "write_text") or owner in others:
        return False
    words = [one.value for one in ast.walk(call) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    binary = name == "open" and any("b" in word and len(word) <= 3 for word in words)
    ours = name == "read_text" and isinstance(call.func, ast.Name)
    return not (binary or ours or any(keyword.arg == "encoding" for keyword in call.keywords))


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(0, "image", "0 images"), (1, "seed", "1 seed"), (2, "class", "2 classes"), (1, "match", "1 match")],
)
def test_one_thing_is_no_plural(number, noun, said):
    assert counted(number, noun) == said
