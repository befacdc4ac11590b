"""The page of tables that were kept without runs: their files say all that it shows, and it says what it lacks."""

import csv
import re
from io import StringIO

import pytest
from support import tables as measured
from support.project import ROOT

from bcd.errors import UserError
from bcd.report import tables
from bcd.report.page import kept
from bcd.report.page.verdicts import Judgement, claims
from bcd.report.render import long_csv, markdown

REFERENCE = ROOT / "results/reference"
TABLES = sorted(REFERENCE.glob("*/*.csv"))


def lines(text: str) -> list[dict[str, str]]:
    """Lines of a table, without the columns that older ones lack, and without the runs, which were not kept."""
    return [
        {name: value for name, value in line.items() if value and name != "runs"}
        for line in csv.DictReader(StringIO(text))
    ]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_table_is_read_back_as_it_was_written(path):
    content = kept.read(path)
    assert lines(long_csv.render(content)) == lines(path.read_text())
    assert markdown.render(content) == path.with_suffix(".md").read_text()
    if content.comparisons:
        families = re.findall(r"over the (\d+) (?:comparisons|with PyTorch)", content.caption)
        assert families == [str(n) for n in (content.comparisons, content.comparisons_to_pytorch) if n]


def test_its_verdicts_are_those_of_the_page_with_runs(project, tmp_path):
    measured.finish_clearly(project)
    contents = [measured.content(name) for name in ("all-labels", "detection", "instance")]
    for content in contents:
        (tmp_path / f"{content.table}.csv").write_text(long_csv.render(content))
        (tmp_path / f"{content.table}.md").write_text(markdown.render(content))
    again = [kept.read(tmp_path / f"{content.table}.csv") for content in contents]

    def judged(found):
        return {(one.title, verdict.task): verdict.judgement for one in claims(found) for verdict in one.verdicts}

    assert judged(again) == judged(contents) and Judgement.SUPPORTED in judged(again).values()


def test_the_page_says_what_it_lacks_and_has_no_section_for_it():
    page = kept.build(REFERENCE / "scenes")
    assert kept.LACKS in page
    assert not re.search(r"<h4>(Images|Learning curves|Cost)</h4>", page) and "small dots" not in page
    assert "results/reference/scenes/" in page and "bcd report" not in page


def test_published_numbers_are_refused(project):
    measured.finish_clearly(project)
    (path,) = (path for path in tables.build(*measured.changed_suite(), "all-labels") if path.suffix == ".csv")
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], text[1].removesuffix(",,") + ",40.7,[1] a paper", *text[2:]]) + "\n")
    with pytest.raises(UserError, match="has published numbers, and only"):
        kept.read(path)


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no table"):
        kept.build(tmp_path)
