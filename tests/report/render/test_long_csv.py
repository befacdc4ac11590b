import csv
import io
from pathlib import Path

from support.suite_results import load
from support.tables import cell, content

from bcd.report import tables


def test_the_csv_has_one_line_per_row_and_metric(project):
    tables.build(*load(), "all-labels", figure=False)
    measured = content()
    lines = list(csv.DictReader(io.StringIO(Path("results/smoke/tables/all-labels.csv").read_text())))
    assert len(lines) == len(measured.pairs[0].rows) * len(measured.metrics)
    line = next(line for line in lines if line["method"] == "bcd" and line["metric"] == "biou")
    found = cell(measured, "bcd", "biou")
    assert float(line["mean"]) == found.mean and float(line["low"]) == found.difference.low
    assert line["significant"] in ("true", "false") and line["runs"] == "2"
    assert all(line["p"] == "" for line in lines if line["method"] in ("none", "teacher"))
