"""What the page's tables and charts show of a `TableContent`: its numbers as they are, and the words beside them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from bcd.report.content import TEACHER, Cell, Comparison, MeasuredRow, PairBlock, TableContent, Trace
from bcd.report.render.text import (
    FILE_HEADS,
    NOTHING,
    difference_text,
    file_texts,
    heading,
    published_metrics,
    published_text,
    row_title,
    source_text,
    title,
    value_text,
)

Json = dict[str, Any]


def table(content: TableContent) -> Json:
    """A table as JSON values: blocks of columns, and of rows of cells, one for each column."""
    return {
        "name": content.table,
        "baseline": content.baseline,
        "metrics": [{"name": metric, "title": title(metric)} for metric in content.main_metrics],
        "blocks": [_block(content, pair) for pair in content.pairs],
        "notes": content.notes,
        "caption": content.caption,
        "sources": [{"number": one.number, "text": source_text(one)} for one in content.sources],
        "without_runs": "Not run yet: this table is partial.",
        "again": {
            "what": "Build the table again",
            "command": _command("bcd", "tables", "--suite", content.suite, "--table", content.table),
        },
    }


def columns_of(content: TableContent) -> list[Json]:
    """Columns in reading order; `main` ones are seen before a reader asks for the rest."""
    columns = []
    for metric in [*content.main_metrics, *(m for m in content.metrics if m not in content.main_metrics)]:
        main = metric in content.main_metrics
        columns.append(_column("value", metric, title(metric), main))
        if main and content.comparisons:
            columns.append(_column("difference", metric, f"Δ {title(metric)}", main))
        if main and content.exported:
            columns.append(_column("to_pytorch", metric, f"Δ {title(metric)} to PyTorch", main))
    columns += [
        _column("published", metric, f"published {title(metric)}", True) for metric in published_metrics(content)
    ]
    if content.exported:
        columns += [_column(head, "", head, True) for head in FILE_HEADS]
    return columns


def _column(kind: str, metric: str, words: str, main: bool) -> Json:
    return {"kind": kind, "metric": metric, "title": words, "main": main}


def _block(content: TableContent, pair: PairBlock) -> Json:
    runs = [run for row in pair.rows for run in row.runs]
    columns, cells = _filled(columns_of(content), pair.rows)
    return {
        "heading": heading(pair),
        "columns": columns,
        "rows": [_row(content, pair, row, own) for row, own in zip(pair.rows, cells, strict=True)],
        "seeds": any(
            value is not None
            for row in pair.rows
            for cell in row.cells.values()
            if cell.difference
            for value in cell.difference.values
        ),
        "all_stale": bool(runs) and all(run.stale for run in runs),
        "gaps": {metric: _gap(pair, content.baseline, metric) for metric in content.main_metrics},
    }


def _filled(columns: list[Json], rows: list[MeasuredRow]) -> tuple[list[Json], list[list[Json]]]:
    """The columns in which any row has something to show, and the cells of each row there.

    A column's `room` is that of the longest text behind a mean, so that means may end at one place.
    """
    cells = [[CELLS[column["kind"]](row, column["metric"]) for row in rows] for column in columns]
    filled = [i for i, column in enumerate(cells) if any(cell["text"] != NOTHING for cell in column)]
    shown = [columns[i] | {"room": max(len(cell["more"]) for cell in cells[i])} for i in filled]
    return shown, [[cells[i][row] for i in filled] for row in range(len(rows))]


def _gap(pair: PairBlock, baseline: str, metric: str) -> str:
    """The teacher's value beside the baseline's, as text: what a difference is to be compared with."""
    teacher, other = (value_text(pair.row(method).cells[metric]) for method in (TEACHER, baseline))
    return f"{baseline} {other}, {TEACHER} {teacher}"


def _row(content: TableContent, pair: PairBlock, row: MeasuredRow, cells: list[Json]) -> Json:
    return {
        "method": row.method,
        "title": row_title(row, content),
        "role": row.method if row.method in (TEACHER, content.baseline) else "method",
        "cells": cells,
        "numbers": {metric: _numbers(row.cells[metric]) for metric in content.metrics},
        "runs": [_run(one) for one in row.runs],
        "commands": _commands(content, pair, row),
        "stale": [run.repetition for run in row.runs if run.stale],
    }


# --- cells ---------------------------------------------------------------------------------------------------------


def _value(row: MeasuredRow, metric: str) -> Json:
    cell = row.cells[metric]
    mean, _, spread = value_text(cell).partition(" ± ")
    return {"text": mean, "more": f"± {spread}" if spread else "", "sort": cell.mean, "mark": ""}


def _difference(row: MeasuredRow, metric: str) -> Json:
    return _compared(row.cells[metric].difference)


def _to_pytorch(row: MeasuredRow, metric: str) -> Json:
    return _compared(row.cells[metric].to_pytorch)


def _compared(found: Comparison | None) -> Json:
    mean, _, interval = difference_text(found).partition(" ")
    return {
        "text": mean,
        "more": interval,
        "sort": found.mean if found else None,
        "mark": (found.verdict if found else None) or "",
    }


def _published(row: MeasuredRow, metric: str) -> Json:
    beside = row.published.get(metric)
    return {"text": published_text(row, metric), "more": "", "sort": beside.value if beside else None, "mark": ""}


def _file(index: int) -> Callable[[MeasuredRow, str], Json]:
    def cell(row: MeasuredRow, _: str) -> Json:
        number = (row.file.bytes, row.file.time)[index] if row.file else None
        return {"text": file_texts(row)[index], "more": "", "sort": number, "mark": ""}

    return cell


CELLS: dict[str, Callable[[MeasuredRow, str], Json]] = {
    "value": _value,
    "difference": _difference,
    "to_pytorch": _to_pytorch,
    "published": _published,
    "file": _file(0),
    "time": _file(1),
}


def _numbers(cell: Cell) -> Json:
    """The cell's numbers as the table's JSON file has them, for charts and traces."""
    return cell.model_dump(include={"values", "difference", "to_pytorch"}) | {
        "text": value_text(cell),
        "difference_text": difference_text(cell.difference),
        "to_pytorch_text": difference_text(cell.to_pytorch),
        "mark": cell.verdict or "",
    }


# --- traces --------------------------------------------------------------------------------------------------------


def _run(run: Trace) -> Json:
    return run.model_dump(exclude={"standing"}) | {"name": run.repetition, "standing": sorted(run.standing)}


def _commands(content: TableContent, pair: PairBlock, row: MeasuredRow) -> list[Json]:
    """What shows more of a row, and what repeats it, in the words of a shell."""
    suite, runs = content.suite, row.runs
    if not runs:
        return []
    files = [f"results/{run.file}" for run in runs]
    return [
        *_comparison(content, pair.row(content.baseline), row),
        {
            "what": "Measure it again",
            "command": "\n".join(_command("bcd", "evaluate", "--suite", suite, run.key) for run in runs),
        },
        {
            "what": "Make it anew, in a clone without results: its data, its teacher and these runs",
            "command": _command("snakemake", *files, "--config", f"suite={suite}"),
        },
    ]


def _comparison(content: TableContent, baseline: MeasuredRow, row: MeasuredRow) -> list[Json]:
    """Nothing for what a table compares with nothing."""
    if row.method in (TEACHER, baseline.method) or not baseline.runs:
        return []
    rows = [one.runs[0].key.rpartition("/")[0] for one in (baseline, row)]
    some = ["--partial"] if content.partial else []
    command = _command("bcd", "compare", "--suite", content.suite, "--table", content.table, *some, *rows)
    return [{"what": f"Compare it with {baseline.method} by class, by size and by image", "command": command}]


def _command(*words: str) -> str:
    return shlex.join(words)
