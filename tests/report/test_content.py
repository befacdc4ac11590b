"""The JSON of a table is its content, and nothing else is taken for one."""

import json

import pytest
from pydantic import ValidationError
from support.tables import cell, content, edit, lose

from bcd.errors import UserError
from bcd.report.content import TableContent


def test_the_json_holds_everything_and_comes_back_equal(project, tmp_path):
    whole = content()
    lose("kd/s0", "cwd/s0", "cwd/s1")
    for measured in (whole, content(partial=True), content("detection")):
        path = tmp_path / "table.json"
        path.write_text(measured.to_json())
        again = TableContent.from_json(path, "`a command`")
        assert again == measured and again.to_json() == measured.to_json()


def test_only_partial_tables_mention_what_is_missing(project):
    assert "partial" not in json.loads(content().to_json())
    assert json.loads(content(partial=True).to_json())["partial"] == {"missing": {}, "runs": 19}


def test_the_file_has_the_names_that_its_page_documents(project):
    value = json.loads(content().to_json())
    assert set(value) == {
        "suite", "table", "caption", "notes", "seeds", "baseline", "metrics", "main_metrics", "comparisons", "sources",
        "pairs", "made_of",
    }  # fmt: skip
    (pair,) = value["pairs"]
    assert set(pair) == {
        "dataset", "teacher_dataset", "split", "images", "data", "teacher", "student", "rows",
    }  # fmt: skip
    assert set(pair["data"]) == {"manifest_sha256", "sha256", "origin", "official", "note", "licence", "warnings"}
    assert set(pair["student"]) == {"name", "parameters", "macs", "macs_input", "pretrained"}
    row = pair["rows"][-1]
    assert set(row) == {"method", "runs", "cells", "published"}
    assert set(row["runs"][0]) == {
        "key", "seed", "file", "store", "record", "rows", "rows_sha256", "evaluation", "stale",
    }  # fmt: skip
    assert set(row["cells"]["miou"]) == {"values", "mean", "std", "difference"}
    assert set(row["cells"]["miou"]["difference"]) == {
        "values", "mean", "low", "high", "p", "significant", "better", "detectable", "seeds_needed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda table: table.pop("seeds"), "seeds: Field required"),
        (lambda table: table.update(colour="red"), "colour: Extra inputs"),
        (
            lambda table: table["pairs"][0]["rows"][1]["cells"]["miou"].update(mean="57.2"),
            "pairs.0.rows.1.cells.miou.mean: Input should be a valid number",
        ),
        (lambda table: table["pairs"][0].pop("student"), "pairs.0.student: Field required"),
        (lambda table: table.update(partial={"runs": 3}), "partial.missing: Field required"),
    ],
)
def test_a_file_of_another_shape_is_named_with_the_remedy(project, tmp_path, change, place):
    path = tmp_path / "table.json"
    path.write_text(content().to_json())
    edit(path, change)
    with pytest.raises(UserError) as caught:
        TableContent.from_json(path, "`bcd tables --suite smoke`")
    assert f"{path} is not a TableContent of this program ({place}" in str(caught.value)
    assert "run `bcd tables --suite smoke` to build it again" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"), [("[]", "is not a TableContent"), ("{", "is not valid JSON"), (None, "is missing")]
)
def test_a_file_that_is_no_table_is_named(tmp_path, text, said):
    path = tmp_path / "table.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"{path} {said}"):
        TableContent.from_json(path, "`a command`")


def test_content_cannot_be_changed(project):
    with pytest.raises(ValidationError, match="frozen"):
        cell(content(), "bcd").mean = 100.0
