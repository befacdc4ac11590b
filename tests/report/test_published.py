"""Published numbers: found by exactly one line, shown in columns of their own, never without a source."""

import csv
import filecmp
import io
import json
import re
import shutil

import pytest
from support.project import ROOT
from support.tables import content

from bcd.config.schema.suites import Published
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.report import published
from bcd.report.render import latex, long_csv, markdown

SHARED = ROOT.parent / "shared" / "published"
LINES = """\
detection,COCO,val,none,student,RetinaNet,R50,800,1x,box AP,36.5,,,Code A,https://a.org/a_1,
detection,COCO,val,none,student,RetinaNet,R50,800,2x,box AP,37.40,,,Code A,https://a.org/a_1,
detection,COCO,val,FGD,distilled,RetinaNet,R50,800,2x,box AP,40.7,,,Code A,https://a.org/a_1,"teacher X101, 3x"
detection,COCO,val,FGD,distilled,RetinaNet,R50,800,1x,box AP,39.9,,,Code A,https://a.org/a_1,
detection,COCO,val,FGD,distilled,RetinaNet,R50,800,1x,box AP50,59.1,,,Code A,https://a.org/a_1,
detection,COCO,val,BCD+,distilled,RetinaNet,R50,800,2x,box AP,41,,,Code B,https://b.org/#x%20y,50 % of it
"""
REPORT = """\
detection,COCO,val,FGD,distilled,RetinaNet,R50,800,12 epochs,box AP,38.0,,,Issue 7,https://a.org/i/7,a user's run
detection,COCO,val,FGD,distilled,RetinaNet,R50,600,12 epochs,box AP,33.0,,,Issue 8,https://a.org/i/8,other input
"""
RETINA = {"model": "RetinaNet", "backbone": "R50"}


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
    """Two small files in the place of params/published."""
    folder = tmp_path / "published"
    folder.mkdir()
    write(folder / "some.csv", LINES)
    write(folder / published.REPORTS, REPORT)
    return folder


def write(path, lines):
    path.write_text(",".join(published.COLUMNS) + "\n" + lines)


def entry(method, where, *, metric="ap", name="some.csv", **fields):
    return Published(method=method, metric=metric, csv=name, where=RETINA | where, **fields)


def table_with(*entries, students=("light-retinanet-student",)):
    """The smoke suite's table of detectors, with published numbers."""
    suite = load_suite("smoke", ROOT / "params")
    table = next(table for table in suite.tables if table.name == "detection")
    pairs = [table.pairs[0].model_copy(update={"student": student}) for student in students]
    return table.model_copy(update={"published": list(entries), "pairs": pairs})


def attached(folder, *entries):
    cells, sources = published.look_up("smoke", table_with(*entries), folder)
    assert all(pair == 0 for pair, _ in cells)
    return {method: cells.get((0, method), {}) for method in ("teacher", "none", "kd", "bcd")}, sources


# --- lookup ------------------------------------------------------------------------------------------------


def test_the_value_is_that_of_the_one_line_with_these_columns_and_this_metric(folder):
    rows, _ = attached(folder, entry("kd", {"method": "FGD", "schedule": "1x"}),
                       entry("kd", {"method": "FGD", "schedule": "1x"}, metric="ap50"))  # fmt: skip
    assert {metric: cell.value for metric, cell in rows["kd"].items()} == {"ap": 39.9, "ap50": 59.1}
    assert rows["none"] == rows["bcd"] == {}
    cell = rows["kd"]["ap"]
    assert (cell.file, cell.line) == ("some.csv", 5)
    assert list(cell.columns) == list(published.COLUMNS) and cell.columns["source_title"] == "Code A"


def test_the_same_source_and_circumstances_share_a_number_in_reading_order(folder):
    plain, distilled = {"method": "none", "schedule": "1x"}, {"method": "FGD", "schedule": "1x"}
    rows, sources = attached(folder, entry("bcd", {"method": "BCD+"}), entry("kd", distilled), entry("none", plain))
    assert [rows[method]["ap"].source for method in ("none", "kd", "bcd")] == [1, 1, 2]
    assert [source.number for source in sources] == [1, 2]
    assert [source.title for source in sources] == ["Code A", "Code B"]


def test_a_source_says_what_differs_from_our_row(folder):
    _, (source,) = attached(folder, entry("kd", {"method": "FGD", "schedule": "2x"}, note="inherits its head"))
    assert source.detail == (
        "FGD RetinaNet R50 (box AP 37.40 undistilled); 800; schedule 2x; teacher X101, 3x; inherits its head"
    )
    rows, (source,) = attached(folder, entry("bcd", {"method": "BCD+"}))
    assert source.detail.startswith("BCD+ RetinaNet R50; 800") and rows["bcd"]["ap"].undistilled is None


def test_a_report_on_the_same_experiment_is_a_doubt_and_one_on_another_is_not(folder):
    _, (source,) = attached(folder, entry("kd", {"method": "FGD", "schedule": "2x"}))
    (doubt,) = source.doubts
    assert (doubt.title, doubt.url) == ("Issue 7", "https://a.org/i/7")
    assert doubt.detail == "FGD RetinaNet R50 box AP 38.0; 800; schedule 12 epochs; a user's run"
    _, (source,) = attached(folder, entry("none", {"method": "none", "schedule": "2x"}))
    assert source.doubts == []


def test_a_pair_is_named_by_its_student_or_its_index(folder):
    students = ("coco-r18", "coco-r50", "coco-r50")
    where = {"method": "FGD", "schedule": "1x"}
    for pair, index in (("coco-r18", 0), (2, 2)):
        (one,) = published.resolve("smoke", table_with(entry("kd", where, pair=pair), students=students), folder)
        assert one.pair == index
    for pair in (None, 3, "coco-r50", "coco-r34"):
        with pytest.raises(UserError, match=r"\.pair: name one pair.*: 0 coco-r18, 1 coco-r50, 2 coco-r50"):
            published.resolve("smoke", table_with(entry("kd", where, pair=pair), students=students), folder)


# --- what is wrong -----------------------------------------------------------------------------------------

ONE = {"method": "FGD", "schedule": "1x"}
# fmt: off
MISTAKES = [  # entries, what the message must say
    ([("kd", {"method": "FGD", "schedule": "3x"})],
     ["no line of", "some.csv has model 'RetinaNet'", "schedule '3x'", "metric 'box AP'",
      "nearest: line 4 (schedule '2x'); line 5 (schedule '1x');"]),
    ([("kd", {"method": "FGD"})], ["2 lines of", "line 4 (schedule '2x'); line 5 (schedule '1x')"]),
    ([("kd", {"method": "FGD", "shedule": "1x"})], [".where: 'shedule'", "did you mean 'schedule'"]),
    ([("kd", ONE | {"metric": "mask AP"})], [".where: 'metric' cannot stand here"]),
    ([("kdd", ONE)], [".method: 'kdd'", "did you mean 'kd'"]),
    ([("kd", ONE, "map")], [".metric: 'map'", "did you mean 'ap'"]),
    ([("kd", ONE, "ap_mask")], [".metric: 'ap_mask'"]),
    ([("kd", ONE, "ap", "som.csv")], [".csv: 'som.csv'", "did you mean 'some.csv'"]),
    ([("kd", ONE), ("kd", {"method": "BCD+"})], ["published[1]: the ap of 'kd' has a published number already"]),
]
# fmt: on


@pytest.mark.parametrize(("entries", "said"), MISTAKES)
def test_a_mistake_is_named(folder, entries, said):
    made = [entry(*one[:2], **dict(zip(("metric", "name"), one[2:], strict=False))) for one in entries]
    with pytest.raises(UserError) as error:
        published.resolve("smoke", table_with(*made), folder)
    for part in ["params/suites/smoke.yaml: tables.detection.published[", *said]:
        assert part in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


# fmt: off
FAULTS = [  # what stands in line 4, what is written instead, what the message must say
    (",40.7,", ",40.7 ± 0.1,", "line 4: the value '40.7 ± 0.1' is no number"),
    (",40.7,", ",nan,", "line 4: the value 'nan' is no number"),
    ("https://a.org/a_1,\"teacher", ",\"teacher", "line 4: a published number needs source_title and source_url"),
    ('"teacher X101, 3x"', "teacher X101, 3x", "line 4: it does not have 16 columns"),
]
# fmt: on


@pytest.mark.parametrize(("old", "new", "said"), FAULTS)
def test_a_faulty_line_is_named(folder, old, new, said):
    assert old in LINES
    write(folder / "some.csv", LINES.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(said)):
        published.resolve("smoke", table_with(entry("kd", ONE)), folder)


def test_other_columns_are_refused(folder):
    (folder / "some.csv").write_text("task,dataset\n")
    with pytest.raises(UserError, match="some.csv: its columns must be task, dataset, split"):
        published.read_lines(folder / "some.csv")


# --- in a table --------------------------------------------------------------------------------------------


@pytest.fixture(name="measured")
def measured_fixture(project, folder):
    """The measured smoke table of detectors, with two published numbers of ap."""
    shutil.copytree(folder, "params/published", dirs_exist_ok=True)
    entries = [entry("none", {"method": "none", "schedule": "1x"}), entry("bcd", {"method": "BCD+"})]
    return measure(*entries, entry("kd", {"method": "FGD", "schedule": "2x"}))


def measure(*entries):
    return content("detection", published=list(entries))


def test_measured_numbers_do_not_change(measured):
    without = measure()
    assert without.sources == [] and "Published" not in without.caption
    assert "published" not in markdown.render(without) and r"\url" not in latex.render(without)
    for ours, other in zip(measured.pairs[0].rows, without.pairs[0].rows, strict=True):
        assert other.published == {}
        assert ours.model_copy(update={"published": {}}) == other
    assert measured.comparisons == without.comparisons


def test_markdown_has_a_column_of_its_own_and_the_sources_below(measured):
    text = markdown.render(measured)
    head, *rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert head[-1] == "published AP" and head.count("published AP") == 1
    assert {row[0]: row[-1] for row in rows[1:]} == {
        "teacher": "–", "none": "36.5 [1]", "kd": "40.7 [2]", "bcd": "41 [3]",
    }  # fmt: skip
    assert "\n[2] Code A: FGD RetinaNet R50 (box AP 37.40 undistilled); 800; schedule 2x;" in text
    assert "https://a.org/a_1 Doubt: Issue 7: FGD RetinaNet R50 box AP 38.0;" in text
    assert "Published numbers are those of others" in measured.caption


def test_latex_has_the_column_and_the_sources_with_their_addresses_as_they_are(measured):
    text = latex.render(measured)
    assert text.startswith("% \\usepackage{booktabs,url}\n")
    values, differences, notes = text.split(r"\medskip")
    assert values.count("published AP") == 1 and "published" not in differences
    assert len(re.findall(r"& (--|\d[\d.]* \[\d\]) \\\\", values)) == 4
    assert re.search(r"\[3\] Code B: BCD\+ .*; 50 \\% of it\. \\url\{https://b\.org/#x%20y\}\\par", notes)
    for line in text.splitlines():
        if line.endswith(r"\\") and r"\multicolumn" not in line:
            columns = re.findall(r"\\begin\{tabular\}\{(lr+)\}", text[: text.index(line)])[-1]
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1


def test_csv_and_json_keep_the_number_and_its_source(measured):
    lines = {(line["method"], line["metric"]): line for line in csv.DictReader(io.StringIO(long_csv.render(measured)))}
    assert lines["kd", "ap"]["published"] == "40.7" and "Issue 7" in lines["kd", "ap"]["published_source"]
    assert [key for key, line in lines.items() if line["published"]] == [("none", "ap"), ("kd", "ap"), ("bcd", "ap")]
    assert all(bool(line["published"]) == bool(line["published_source"]) for line in lines.values())
    stored = json.loads(measured.to_json())
    assert [source["number"] for source in stored["sources"]] == [1, 2, 3]
    assert {row["method"]: row["published"].get("ap", {}).get("source") for row in stored["pairs"][0]["rows"]} == {
        "teacher": None, "none": 1, "kd": 2, "bcd": 3,
    }  # fmt: skip


# --- what is shipped ---------------------------------------------------------------------------------------


def test_every_shipped_line_has_a_number_and_a_source():
    files = sorted((ROOT / "params" / "published").glob("*.csv"))
    assert len(files) >= 6 and all(published.read_lines(path) for path in files)


@pytest.mark.parametrize("suite", sorted(path.stem for path in (ROOT / "params" / "suites").glob("*.yaml")))
def test_every_published_entry_of_a_suite_names_one_line(suite):
    for table in load_suite(suite, ROOT / "params").tables:
        published.resolve(suite, table, ROOT / "params" / "published")


@pytest.mark.skipif(not SHARED.exists(), reason="the collected figures (../shared/published) are not here")
def test_the_files_are_those_that_were_collected():
    for path in (ROOT / "params" / "published").glob("*.csv"):
        assert filecmp.cmp(path, SHARED / path.name, shallow=False), path.name
