"""Entries and suites beside those that others wrote."""

import pytest
import yaml

from bcd.errors import UserError
from bcd.scaffold.write import require_free, suite_file, write

BEFORE = "# Ours.\nscenes: {a: 1}  # a comment\n\nother:\n  b: [1,\n    2]\n"


@pytest.fixture
def params(tmp_path):
    (tmp_path / "suites").mkdir()
    (tmp_path / "datasets.yaml").write_text(BEFORE)
    return tmp_path


def test_an_entry_is_added_and_replaced_and_all_else_stays(params):
    write("ponds", {"classes": ["a", "b"] * 30, "masks": {"x": {"y": 1}}}, {"task": "semantic"}, "ponds/", params)
    write("roads", {"z": 1}, {}, "roads", params)
    with pytest.raises(UserError, match=r"datasets\.yaml has 'ponds' already; give another name by --name, or replace"):
        require_free("ponds", params, force=False)
    require_free("ponds", params, force=True)
    write("ponds", {"new": "0 0 0"}, {"task": "semantic"}, "ponds/", params)
    text = (params / "datasets.yaml").read_text()
    assert text.startswith(BEFORE)
    assert yaml.safe_load(text) == yaml.safe_load(BEFORE) | {"roads": {"z": 1}, "ponds": {"new": "0 0 0"}}
    assert text.count("# Written by `bcd new` from ") == 2
    assert yaml.safe_load(suite_file("ponds", params).read_text()) == {"task": "semantic"}


def test_what_others_wrote_is_not_replaced(params):
    with pytest.raises(
        UserError, match=r"has 'other' already, which `bcd new` did not write; give another name by --na"
    ):
        require_free("other", params, force=True)
    suite_file("mine", params).write_text("task: semantic\n")
    with pytest.raises(UserError, match=r"there is a file .*mine\.yaml already, which `bcd new` did not write"):
        require_free("mine", params, force=True)
    require_free("ponds", params, force=False)


def test_a_value_that_stands_twice_is_written_twice(params):
    shared = {"short_sides": [224]}
    write("ponds", {}, {"set": {"a": shared, "b": shared}}, "ponds", params)
    text = suite_file("ponds", params).read_text()
    assert text.count("short_sides: [224]") == 2 and "&" not in text
