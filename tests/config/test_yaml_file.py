"""YAML is read strictly: what is no number is text, no key stands twice, and a broken file is one sentence."""

import math

import pytest

from bcd.config.yaml_file import parse, read_yaml
from bcd.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("-7", -7), ("1.5", 1.5), ("1e-3", 0.001), ("5e-05", 5e-5), ("1.0e+38", 1e38), (".5", 0.5),
        ("010", "010"), ("1:30", "1:30"), ("0x10", "0x10"), ("1_000", "1_000"), ("no", "no"), ("on", "on"),
        ("true", True), ("~", None), ("", None), ("[1, a]", [1, "a"]), (".inf", math.inf), ("'1'", "1"),
        ("dir/file.pth", "dir/file.pth"), ("2026-01-02", "2026-01-02"),
    ],
)  # fmt: skip
def test_a_value_is_what_it_looks_like(text, value):
    found = parse(text, "here")
    assert found == value and type(found) is type(value)


TENFOLD = "a{}: &a{} [" + ",".join(["*a{}"] * 10) + "]\n"
ALIASES = "a0: &a0 [1]\n" + "".join(TENFOLD.replace("*a{}", f"*a{i - 1}").format(i, i) for i in range(1, 9))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: \xe9", "not UTF-8"),
        ("a: 1".encode("utf-16"), "not UTF-8"),
        (b"- 1", "expected a mapping"),
        (b"", "expected a mapping"),
        (b"a: 1\nb: 2\na: 3", "line 3: the key 'a' stands twice"),
        (b"[1, 2]: x", "a key must be a word"),
        (b"1: x", "the key 1 is not a word"),
        (b"a: [1", "not valid YAML"),
        (b"a: 1\n---\nb: 2", "not valid YAML"),
        (b"a: !!python/object:os.system x", "not valid YAML"),
        (b"a: " + b"[" * 3000, "nested too deeply"),
        (b'a: !!bool "abc"', "not valid YAML"),
        (b'a: !!timestamp "abc"', "not valid YAML"),
        (b"a: &a [1, *a]", "line 1: an alias holds itself"),
        (ALIASES.encode(), "aliases write out to more than 100000 values"),
        (b"a: \x1b[31m", "not valid YAML"),
        (b"a: " + b"9" * 5000, "not valid YAML"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "recipes.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_yaml(path)
    assert str(error.value).startswith(str(path)) and said in str(error.value) and str(error.value).isprintable()


def test_a_folder_or_nothing_in_the_files_place_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)
    with pytest.raises(UserError, match="is missing; run the command in the project's folder"):
        read_yaml(tmp_path / "absent.yaml")


def test_merged_mappings_may_be_overridden(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("base: &base {lr: 1, steps: 2}\nmine:\n  <<: *base\n  lr: 3\n")
    assert read_yaml(path)["mine"] == {"lr": 3, "steps": 2}
