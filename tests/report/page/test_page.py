"""The page of a suite: one file with every number of its tables, that fetches nothing and trusts no name."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support import tables as measured
from support.suite_results import change_weight, copied, load

from bcd.errors import UserError
from bcd.planning.outdated import outdated
from bcd.report import tables
from bcd.report.content import TableContent
from bcd.report.page.page import build
from bcd.report.page.render import embedded
from bcd.report.render.text import difference_text, value_text
from bcd.runs.expand import suite_rows

PAGE = Path("results/smoke/report.html")
LIMIT = 5_000_000  # bytes; the library of charts is 0.9 MB of it
FETCHING = {"src", "href", "action", "poster", "data", "srcset", "xlink:href"}


class Elements(HTMLParser):
    """What a browser would make of a page: its elements, and the text of each table's rows."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.rows: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text += data
            if self.rows:
                self.rows[-1] += data

    def handle_endtag(self, tag):
        self.inside = ""


@pytest.fixture
def project(paged, tmp_path, monkeypatch):
    """A copy of the project with the page, as the current directory."""
    monkeypatch.chdir(copied(paged, tmp_path / "project"))
    return tmp_path / "project"


@pytest.fixture(scope="module", name="page")
def page_fixture(paged):
    return (paged / PAGE).read_text()


def contents(root=Path()) -> list[TableContent]:
    files = sorted((root / "results/smoke/tables").glob("*.json"))
    return [TableContent.from_json(path, "nothing") for path in files]


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_nothing_in_it_is_fetched(page):
    for tag, attributes in Elements(page).found:
        for name in FETCHING & set(attributes):
            assert re.match(r"(data:|#)", attributes[name] or ""), (tag, attributes)
    assert not any(tag in ("link", "iframe", "object", "embed", "base", "form") for tag, _ in Elements(page).found)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style


def test_the_browser_is_told_to_fetch_nothing(page):
    policy = next(a["content"] for tag, a in Elements(page).found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "unsafe-eval" not in policy and "http" not in policy


def test_it_is_small_enough(page):
    assert 900_000 < len(page.encode()) < LIMIT


def test_equal_results_give_equal_bytes(project):
    before = PAGE.read_bytes()
    PAGE.unlink()
    assert build(*load()).read_bytes() == before


def test_it_names_no_folder_and_no_machine(paged, page):
    import platform

    assert str(paged) not in page and str(Path.home()) + "/" not in page
    host = platform.node()
    assert not host or len(host) < 4 or host not in page


def test_every_row_of_every_table_is_there_with_its_numbers(paged, page):
    rows = [" ".join(row.split()) for row in Elements(page).rows]
    for content in contents(paged):
        for pair in content.pairs:
            for row in pair.rows:
                wanted = [value_text(row.cells[metric]) for metric in content.metrics]
                wanted += [difference_text(row.cells[metric].difference) for metric in content.main_metrics]
                assert any(
                    one.startswith(row.method) and all(text in one for text in wanted) for one in rows
                ), (content.table, row.method)  # fmt: skip


def test_marks_are_words_too(page):
    said = " ".join(Elements(page).text.split())
    assert "bcd, Δ mIoU: +" in said and ", significantly better" in said and ", significantly worse" in said


def test_the_data_are_those_of_the_tables(paged, page):
    shown = {table["name"]: table for table in data_of(page)["tables"]}
    for content in contents(paged):
        for block, pair in zip(shown[content.table]["blocks"], content.pairs, strict=True):
            for one, row in zip(block["rows"], pair.rows, strict=True):
                for metric, cell in row.cells.items():
                    assert one["numbers"][metric]["values"] == cell.values
                    difference = cell.difference.model_dump() if cell.difference else None
                    assert one["numbers"][metric]["difference"] == difference
                assert [run["record"] for run in one["runs"]] == [run.record for run in row.runs]


def test_every_picture_that_is_named_is_there(page):
    data = data_of(page)
    viewers = [block["viewer"] for table in data["tables"] for block in table["blocks"]]
    images = [image for viewer in viewers for image in viewer["images"]]
    names = [name for image in images for name in (image["image"], image["label"], *sum(image["seen"].values(), []))]
    assert len(images) == 4 * 6 and {name for name in names if name} == set(data["pictures"])


def test_times_are_kept_apart_from_results(page):
    """Training took 4 s in each record, and the cost of a row is the only place that says so."""
    costs = [cell for table in data_of(page)["tables"] for block in table["costs"]["blocks"] for row in block["rows"]
             for cell in row["cells"]]  # fmt: skip
    assert "4 s" in costs
    assert "2026-01-02" not in page, "when a run was finished is nobody's business"


def test_commands_repeat_a_cell(page):
    table = data_of(page)["tables"][0]
    row = next(row for row in table["blocks"][0]["rows"] if row["method"] == "bcd")
    beside, evaluate, anew = (one["command"] for one in row["commands"])
    rows = f"{measured.STUDENT}/none {measured.STUDENT}/bcd"
    assert beside == f"bcd compare --suite smoke --table all-labels {rows}"
    others = [one for one in table["blocks"][0]["rows"] if one["method"] in ("teacher", "none")]
    assert [len(one["commands"]) for one in others] == [2, 2], "they are compared with nothing"
    assert evaluate.splitlines()[0] == f"bcd evaluate --suite smoke {measured.STUDENT}/bcd/s0"
    runs = f"results/smoke/runs/{measured.STUDENT}/bcd"
    assert anew == f"snakemake {runs}/s0.json {runs}/s1.json --config suite=smoke"
    assert table["again"]["command"] == "bcd tables --suite smoke --table all-labels"


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'so'"


def test_names_and_descriptions_stay_text(project):
    suite_file = Path("params/suites/smoke.yaml")
    text = suite_file.read_text()
    text = text.replace("description: Two steps", f"description: {json.dumps(HOSTILE)}  # Two steps", 1)
    suite_file.write_text(text.replace("caption: Two training steps;", f"caption: {json.dumps(HOSTILE)}  #", 1))
    params, suite = load()
    assert suite.description == suite.tables[0].caption == HOSTILE
    for table in suite.tables:
        tables.build(params, suite, table.name, figure=False)
    page = build(params, suite).read_text()
    found = Elements(page)
    assert found.text.count(HOSTILE) >= 3
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in found.found)
    assert sum(tag == "script" for tag, _ in found.found) == 7
    assert HOSTILE in data_of(page)["tables"][0]["caption"]


def test_json_in_a_script_cannot_end_it():
    assert embedded({"a": "</script><!--\u2028"}) == '{"a":"\\u003c/script>\\u003c!--\\u2028"}'


# --- which page it is ----------------------------------------------------------------------------------------------


def outdated_pages() -> list[str]:
    params, suite = load()
    return [path.name for path in outdated(params, suite, suite_rows(params, suite)) if path.suffix == ".html"]


def test_a_page_of_today_is_not_made_again(project):
    assert outdated_pages() == []


def test_a_page_of_other_params_is_made_again(project):
    path = Path("params/suites/smoke.yaml")
    path.write_text(path.read_text().replace("caption: ", "caption: Of late, ", 1))
    assert outdated_pages() == ["report.html"]


def test_a_damaged_page_is_made_again(project):
    PAGE.write_text("no page")
    assert outdated_pages() == ["report.html"]


def test_a_table_of_other_params_is_refused(project):
    path = Path("params/suites/smoke.yaml")
    path.write_text(path.read_text().replace("caption: ", "caption: Of late, ", 1))
    with pytest.raises(
        UserError, match="all-labels.json was made of other runs.*run `bcd tables --suite smoke --table"
    ):
        build(*load())


def test_a_missing_table_is_an_error_with_its_remedy(project):
    Path("results/smoke/tables/detection.json").unlink()
    with pytest.raises(UserError, match="detection.json is missing"):
        build(*load())


def test_a_partial_page_says_so_and_lies_apart(project):
    measured.lose("bcd/s1")
    change_weight("cwd")
    params, suite = load()
    for table in suite.tables:
        tables.build(params, suite, table.name, figure=False, partial=True)
    path = build(params, suite, partial=True)
    assert path == Path("results/smoke/partial/report.partial.html")
    said = " ".join(Elements(path.read_text()).text.split())
    assert "This page is partial. all-labels: PARTIAL: 3 of 19 runs are missing" in said
    assert "bcd (1 of 2 seeds)" in said and "not run" in said
    assert "made-of" not in path.read_text().split("</head>")[0]


def test_stale_runs_are_marked(project):
    measured.edit(measured.student_file("bcd"), lambda run: run["code"].update(train="0" * 16))
    params, suite = load()
    for table in suite.tables:
        tables.build(params, suite, table.name, figure=False)
    page = build(params, suite).read_text()
    assert "stale code" in Elements(page).text
    rows = data_of(page)["tables"][0]["blocks"][0]["rows"]
    assert {row["method"]: row["stale"] for row in rows if row["stale"]} == {"bcd": ["s0"]}
