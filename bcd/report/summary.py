"""The main numbers of a suite's tables, for tools that compare two states of a project, such as DVC."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bcd.config.schema.suites import Suite
from bcd.files import atomic_write
from bcd.report.content import PairBlock, TableContent
from bcd.report.outputs import table_file
from bcd.runs.jsonfile import dump

FILES = ("metrics.json", "main.csv")  # in results/SUITE


def build(suite: Suite, results: Path = Path("results")) -> list[Path]:
    """Write both files from the JSON files of the suite's tables; returns their paths.

    Raises UserError for a table that is not built, or by a version that writes it otherwise.
    """
    remedy = f"`bcd tables --suite {suite.name}`"
    contents = [
        TableContent.from_json(table_file(results, suite.name, table.name, "json"), remedy) for table in suite.tables
    ]
    paths = [results / suite.name / name for name in FILES]
    for path, text in zip(paths, (dump(metrics(contents)), bars(contents)), strict=True):
        atomic_write(path, text)
    return paths


def metrics(contents: Sequence[TableContent]) -> dict[str, Any]:
    """Table -> method -> main metric -> mean over seeds, in percent; a table of several pairs has these in between.

    A number that is undefined is left out.
    """
    return {
        content.table: _unwrapped({_name(content, pair): _rows(content, pair) for pair in content.pairs})
        for content in contents
    }


def bars(contents: Sequence[TableContent]) -> str:
    """CSV with the first main metric of each row: `row,metric,mean`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "metric", "mean"])
    for content in contents:
        metric = content.main_metrics[0]
        for pair in content.pairs:
            for method, means in _rows(content, pair).items():
                if metric in means:
                    names = (content.table, *([_name(content, pair)] if len(content.pairs) > 1 else []), method)
                    writer.writerow([" ".join(names), metric, means[metric]])
    return text.getvalue()


def _rows(content: TableContent, pair: PairBlock) -> dict[str, dict[str, float]]:
    means = {row.method: {name: row.cells[name].mean for name in content.main_metrics} for row in pair.rows}
    return {method: {name: mean for name, mean in row.items() if mean is not None} for method, row in means.items()}


def _name(content: TableContent, pair: PairBlock) -> str:
    """What tells a pair from the others of its table."""
    several = len({one.dataset for one in content.pairs}) > 1
    form = f"@{pair.export}" if pair.export else ""
    return f"{f'{pair.dataset}/' if several else ''}{pair.student.name}-from-{pair.teacher.name}{form}"


def _unwrapped(pairs: dict[str, Any]) -> dict[str, Any]:
    return next(iter(pairs.values())) if len(pairs) == 1 else pairs
