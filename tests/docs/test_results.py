"""docs/results: what a page copies from the reference tables is what stands there."""

import csv
import re
import shlex
import subprocess
import sys

import pytest
from support.project import ROOT

PAGE = (ROOT / "docs" / "results" / "chip.md").read_text()
FORMS = {"PyTorch": "", "int8": "onnx-int8"}
METRICS = {"mIoU": "miou", "Boundary IoU": "biou", "connectivity": "conn"}


SECTIONS = dict(block.split("\n", 1) for block in PAGE.split("\n## ")[1:])
TABLES = {"Generated scenes": "chip/chip", "Photographs": "camvid-pretrained-long/chip"}


def gains(section: str) -> dict[str, list[str]]:
    """Method -> the cells of the section's table of gains."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("| `")]
    return {cells[1].strip(" `"): [cell.strip() for cell in cells[2:-1]] for cells in (x.split("|") for x in lines)}


def reference(table: str) -> dict[tuple[str, str, str], dict[str, str]]:
    with (ROOT / f"results/reference/{table}.csv").open(newline="") as file:
        return {(one["export"], one["method"], one["metric"]): one for one in csv.DictReader(file)}


@pytest.mark.parametrize("section", TABLES)
def test_gains_on_the_chip_are_those_of_the_reference(section):
    lines, found = reference(TABLES[section]), gains(section)
    assert set(found) == {method for _, method, _ in lines} - {"teacher", "none"}
    for method, cells in found.items():
        wanted = [lines[form, method, metric] for metric in METRICS.values() for form in FORMS.values()]
        assert cells == [f"{float(one['difference']):+.2f}" for one in wanted]


def test_every_gain_on_generated_scenes_is_marked_as_the_page_says():
    compared = [one for one in reference(TABLES["Generated scenes"]).values() if one["difference"]]
    assert compared and all(one["significant"] == "true" for one in compared)


def test_the_table_of_schedules_is_that_of_the_reference():
    page = (ROOT / "docs" / "results" / "pretrained.md").read_text()
    means: dict[tuple[str, str], list[str]] = {}
    for suite in ("camvid-pretrained-quarter", "camvid-pretrained", "camvid-pretrained-long"):
        with (ROOT / f"results/reference/{suite}/lite.csv").open(newline="") as file:
            for one in csv.DictReader(file):
                means.setdefault((one["metric"], one["method"]), []).append(f"{float(one['mean']):.1f}")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    found = {(METRICS[row[0]], row[1]): row[2:] for row in rows if row[0] in METRICS and len(row) == 5}
    assert found == {key: means[key] for key in found} and len(found) == 12


DETECTORS = {"AP": "ap", "AP50": "ap50", "mask AP": "ap_mask", "boundary AP": "ap_boundary"}


def of_detectors(table: str, method: str, metric: str) -> str:
    """A number as docs/results/detection.md writes it: a mean of teacher and `none`, else a difference."""
    with (ROOT / f"results/reference/{table}.csv").open(newline="") as file:
        line = next(one for one in csv.DictReader(file) if (one["method"], one["metric"]) == (method, metric))
    if method in ("teacher", "none"):
        return f"{float(line['mean']):.1f}"
    marked = ("*" if float(line["difference"]) > 0 else "†") if line["significant"] == "true" else ""
    return f"{float(line['difference']):+.1f}".replace("-", "−") + marked


@pytest.mark.parametrize(
    ("section", "tables"),
    [
        ("What distillation adds", {"AP50": "scenes-pretrained/detection", "": "scenes-pretrained/instance"}),
        (
            "At four times the steps",
            {
                ("150", "300"): "scenes-pretrained/instance",
                ("600", "300"): "scenes-pretrained-long/instance",
                ("600", "1200"): "scenes-pretrained-strong/instance",
            },
        ),
    ],
)
def test_differences_of_detectors_are_those_of_the_reference(section, tables):
    text = (ROOT / "docs" / "results" / "detection.md").read_text().split(f"### {section}\n")[1].split("\n##")[0]
    held = 0
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        header, _, *lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        for row in (dict(zip(header, line, strict=True)) for line in lines):
            lengths = (row["steps"], row["of the teacher"]) if "steps" in row else None
            table = tables[lengths or ("AP50" if "AP50" in header else "")]
            for name, metric in DETECTORS.items():
                if name in row:
                    assert row[name] == of_detectors(table, row["row"].strip("`"), metric), row
                    held += 1
    assert held >= 18


@pytest.mark.parametrize(
    ("page", "script"), [("pretrained", "gains"), ("pretrained", "chosen"), ("detection", "chosen")]
)
def test_tables_are_what_their_commands_print(page, script):
    text = (ROOT / "docs" / "results" / f"{page}.md").read_text()
    commands = re.findall(rf"^    python (benchmarks/{script}\.py .*)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        shell = ["bash", "-c", f"{shlex.quote(sys.executable)} {command}"]  # which knows {a,b}
        said = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for table in said.strip().split("\n\n")[1::2]:
            assert table in text, f"{command} prints another table:\n{table}"
