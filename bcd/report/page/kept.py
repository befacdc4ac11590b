"""The page of tables that were kept without their runs, such as results/reference: what their files say, and no more.

The inverse of `bcd.report.render.long_csv` for the numbers, and of `markdown` for the words around them.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from bcd.errors import UserError
from bcd.report.content import TEACHER, Cell, Comparison, FileCost, MeasuredRow, ModelFacts, PairBlock, TableContent
from bcd.report.measure import LOWER_IS_BETTER
from bcd.report.page import cells
from bcd.report.page.render import About, render

HEADING = re.compile(r"\*\*\S+ from \S+(?: \(trained on (\S+)\))? on .+\*\*")
LACKS = (
    "Only tables were kept of these runs. So there are no images, learning curves, costs and single seeds, nothing is "
    "said of the cost at inference, and a cell opens no runs."
)

Line = dict[str, str]


def build(folder: Path) -> str:
    """The page of the tables in a folder, NAME.csv with NAME.md, that has the name of their suite.

    Raises UserError for a folder without tables, and for what `read` refuses.
    """
    contents = [read(path) for path in sorted(folder.glob("*.csv"))]
    if not contents:
        raise UserError(f"{folder} has no table; a page takes the .csv and .md files of `bcd tables`")
    suite = folder.name
    about = About(
        suite=suite,
        description="Reference results, measured once, for comparison with your own.",
        captions={},
        folder=f"results/reference/{suite}",
        command="make docs",
        lacks=[LACKS],
    )
    return render(about, contents, [_table(one) for one in contents], {}, {})


def _table(content: TableContent) -> cells.Json:
    """What `bcd.report.page.page` shows of a table, without what runs are needed for."""
    shown = cells.table(content)
    for block in shown["blocks"]:
        block |= {"viewer": None, "curves": []}
        for row in block["rows"]:
            row["commits"] = []
    anew = {
        "what": "Make the suite as it is today: its data, its runs and its tables",
        "command": f"snakemake --config suite={content.suite}",
    }
    return shown | {"costs": None, "without_runs": "They were not kept.", "again": anew}


def read(path: Path) -> TableContent:
    """A table from its .csv file and the .md file beside it; it has no runs, and values of single seeds are None.

    Raises UserError if it has published numbers, of which these files say too little.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    if any(line.get("published") for line in lines):
        raise UserError(f"{path} has published numbers, and only a table's .json file has their sources")
    _, caption, *parts = path.with_suffix(".md").read_text(encoding="utf-8").strip().split("\n\n")
    headings = [found for part in parts if (found := HEADING.fullmatch(part))]
    pairs = [_pair(block, head[1]) for block, head in zip(_blocks(lines), headings, strict=True)]
    students = [row for pair in pairs for row in pair.rows if row.method != TEACHER]
    metrics = list(dict.fromkeys(line["metric"] for line in lines))
    return TableContent(
        suite=lines[0]["suite"],
        table=lines[0]["table"],
        caption=caption,
        notes=[part for part in parts if not part.startswith(("|", "**"))],
        seeds=max(int(line["runs"]) for line in lines),
        baseline=next(row.method for row in students if not any(cell.difference for cell in row.cells.values())),
        metrics=metrics,
        main_metrics=list(dict.fromkeys(line["metric"] for line in lines if line["significant"])) or metrics,
        comparisons=_largest_family(lines, "significant"),
        comparisons_to_pytorch=_largest_family(lines, "pytorch_significant"),
        sources=[],
        pairs=pairs,
    )


def _blocks(lines: Sequence[Line]) -> list[list[Line]]:
    """Each pair's lines, which begin with those of its teacher."""
    blocks: list[list[Line]] = []
    for method, of_row in groupby(lines, key=lambda line: line["method"]):
        blocks += [[]] if method == TEACHER else []
        blocks[-1] += of_row
    return blocks


def _pair(lines: Sequence[Line], teacher_dataset: str | None) -> PairBlock:
    first = lines[0]
    return PairBlock(
        dataset=first["dataset"],
        teacher_dataset=teacher_dataset or first["dataset"],
        split=None,
        images=None,
        data=None,
        teacher=_model(first["teacher"]),
        student=_model(first["student"]),
        export=first.get("export") or None,
        rows=[_row(list(of_row)) for _, of_row in groupby(lines, key=lambda line: line["method"])],
    )


def _model(name: str) -> ModelFacts:
    return ModelFacts(name=name, parameters=None, macs=None, macs_input=None, pretrained=None)


def _row(lines: Sequence[Line]) -> MeasuredRow:
    size, time = lines[0].get("bytes"), lines[0].get("time")
    return MeasuredRow(
        method=lines[0]["method"],
        runs=[],
        cells={line["metric"]: _cell(line) for line in lines},
        published={},
        file=FileCost(bytes=float(size), time=float(time) if time else None) if size else None,
    )


def _cell(line: Line) -> Cell:
    runs, mean = int(line["runs"]), _number(line["mean"])
    return Cell(
        values=[mean] if runs == 1 else [None] * runs,
        mean=mean,
        std=_number(line["std"]),
        difference=_comparison(line, ""),
        to_pytorch=_comparison(line, "pytorch_"),
    )


def _comparison(line: Line, prefix: str) -> Comparison | None:
    if not line.get(f"{prefix}significant"):
        return None
    mean, low, high, p = (_number(line[prefix + name]) for name in ("difference", "low", "high", "p"))
    sign = -1 if line["metric"] in LOWER_IS_BETTER else 1
    return Comparison(
        values=[None] * int(line["runs"]),
        mean=mean,
        low=low,
        high=high,
        p=p,
        significant=line[f"{prefix}significant"] == "true",
        better=mean is not None and sign * mean > 0,
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _largest_family(lines: Sequence[Line], column: str) -> int:
    """How many comparisons a correction is over: those of one form, whose lines say what came out."""
    return max(Counter(line.get("export", "") for line in lines if line.get(column)).values(), default=0)
