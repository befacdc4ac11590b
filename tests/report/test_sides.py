"""Which rows two words mean, in suites of the project; nothing is trained or read but params."""

import pytest
from support.project import ROOT

from bcd.cli.compare import compare as command
from bcd.config.load import default_suite, load_params
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.report.sides import find_sides

LIGHT = "semantic/scenes/light-student-from-light-teacher"


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def found(suite, a, b, table=None):
    return [(side.table.name, side.address) for side in find_sides(load_params(), load_suite(suite), a, b, table)]


def refused(suite, a, b, table=None):
    with pytest.raises(UserError) as error:
        found(suite, a, b, table)
    return str(error.value)


def test_a_method_suffices_where_there_is_one_such_row():
    assert found("scenes", "bcd-boundary", "bcd-context") == [
        ("all-labels", f"{LIGHT}/bcd-boundary"),
        ("all-labels", f"{LIGHT}/bcd-context"),
    ]


def test_the_examples_of_the_help_are_of_the_default_suite():
    examples = [line.split()[2:4] for line in command.__doc__.splitlines() if line.strip().startswith("bcd compare ")]
    assert len(examples) == 3 and default_suite() == "scenes"
    assert [found("scenes", *words)[0][0] for words in examples] == ["all-labels", "detection", "chip"]


def test_one_word_that_is_in_one_table_only_says_which_row_the_other_is():
    """`bcd` is a row of four tables, `pkd` of two and `kd` of one."""
    assert found("scenes", "kd", "bcd") == [("all-labels", f"{LIGHT}/kd"), ("all-labels", f"{LIGHT}/bcd")]


def test_a_table_may_be_named_by_either_word_or_by_the_option():
    wanted = ["detection", "detection"]
    for a, b, table in (("detection:pkd", "bcd", None), ("pkd", "detection:bcd", None), ("pkd", "bcd", "detection")):
        assert [name for name, _ in found("scenes", a, b, table)] == wanted


def test_rows_of_one_form_come_before_rows_of_two():
    assert found("scenes", "chip:none", "cwd") == [("chip", f"{LIGHT}/none"), ("chip", f"{LIGHT}/cwd")]
    said = refused("scenes", "chip:none", "cwd@onx")
    assert "did you mean 'cwd@onnx'" in said
    assert found("scenes", "cwd", "cwd@onnx-int8") == [("chip", f"{LIGHT}/cwd"), ("chip", f"{LIGHT}/cwd@onnx-int8")]


def test_keys_of_runs_and_the_ends_of_keys():
    whole = found("scenes", f"{LIGHT}/bcd/s1", f"{LIGHT}/none")
    assert whole == [("all-labels", f"{LIGHT}/bcd/s1"), ("all-labels", f"{LIGHT}/none")]
    assert found("scenes", "all-labels:bcd/s1", "light-student-from-light-teacher/none") == whole
    assert found("scenes", "semantic/scenes/light-teacher/none/s0", "kd")[0] == ("all-labels", f"{LIGHT}/teacher")


def test_tables_that_share_their_runs_are_no_ambiguity():
    """`light-against-bcd` has the runs of `light`."""
    assert [name for name, _ in found("camvid-pretrained", "light:cwd", "bcd")] == ["light", "light"]
    said = refused("camvid-pretrained", "cwd", "bcd")
    assert said.startswith("'cwd' and 'bcd' fit several rows; say one of: lite:cwd lite:bcd; light:cwd light:bcd")
    assert "against" not in said


def test_ambiguous_words_are_an_error_that_lists_what_to_say():
    said = refused("scenes", "none", "bcd")
    for table in ("all-labels", "detection", "instance"):
        assert f"{table}:none {table}:bcd" in said
    for words in said.partition("say one of: ")[2].split("; "):
        assert len(set(found("scenes", *words.split()))) == 2


def test_pairs_of_one_table_are_told_apart_by_the_end_of_the_key():
    suite = "bcd-seg"
    said = refused(suite, "none", "bcd")
    choices = said.partition("say one of: ")[2].partition(" and ")[0].split("; ")
    assert len(choices) > 1
    for words in choices:
        assert len(set(found(suite, *words.split()))) == 2


def test_unknown_rows_have_the_nearest_name():
    assert refused("scenes", "none", "bpk") == (
        "'bpk' is no row of the tables all-labels, chip, detection, instance; did you mean 'bpkd'?"
    )
    assert "of the table detection; did you mean 'fgd'" in refused("scenes", "none", "fdg", "detection")
    assert "did you mean 'detection'" in refused("scenes", "detecton:none", "bcd")
    assert "did you mean 'detection'" in refused("scenes", "none", "bcd", "detecton")
    for word in ("all-labels", "all-labels:"):
        assert refused("scenes", word, "bcd").startswith(f"'{word}' is a table; write all-labels:ROW, such as ")
    assert "did you mean 'bcd/s4'" in refused("scenes", "all-labels:bcd/s5", "none")


def test_two_rows_of_one_table_are_needed():
    assert refused("scenes", "pbd", "fgd") == (
        "'pbd' stands in all-labels, chip and 'fgd' in detection, instance; compare two rows of one table"
    )
    assert "are the same row, all-labels:kd" in refused("scenes", "kd", "all-labels:kd")
