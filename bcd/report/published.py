"""Numbers that others published, shown beside a table's own: lines of `params/published/*.csv`, each with its source.

A table's `published` entries (`bcd.config.schema.Published`) say which line stands beside which cell; `attach` looks
them up.
They never enter a mean, a difference or a test.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bcd.config.schema import Published, Table
from bcd.errors import UserError, nearest

FOLDER = Path("params/published")
# Runs of people who tried to repeat a published number: the doubts about it.
REPORTS = "reproduction_reports.csv"
COLUMNS = (
    "task", "dataset", "split", "method", "role", "model", "backbone", "crop_or_input", "schedule", "metric",
    "value", "gflops", "params_m", "source_title", "source_url", "note",
)  # fmt: skip
# Our metrics, all in percent, as the files call them.
METRICS = {
    "ap": "box AP", "ap50": "box AP50", "ap75": "box AP75", "ap_s": "box APs", "ap_m": "box APm", "ap_l": "box APl",
    "ap_mask": "mask AP", "miou": "mIoU", "macc": "mAcc",
}  # fmt: skip
# Two lines that agree in these are about the same experiment, except for its schedule.
EXPERIMENT = ("task", "dataset", "split", "method", "model", "backbone", "crop_or_input", "metric")
# Numbers that agree in these share a note.
CITATION = ("source_title", "source_url", "crop_or_input", "schedule", "note")
NUMBER, URL = re.compile(r"-?\d+(\.\d+)?"), re.compile(r"https?://[^\s{}\\]+")
NAMED = 3  # lines that a message names


@dataclass(frozen=True)
class Line:
    """One line of a CSV file; `number` counts from 1, which is the header."""

    file: str
    number: int
    columns: dict[str, str]

    def agrees(self, other: Line, columns: Collection[str]) -> bool:
        return all(self.columns[column] == other.columns[column] for column in columns)


@dataclass(frozen=True)
class Shown:
    """What a table shows beside the cell of a pair (its index), method and metric.

    undistilled: the value of the same student without distillation, according to the same source
    doubts: what others report of the same experiment
    note: what the table's entry remarks
    """

    pair: int
    method: str
    metric: str
    line: Line
    undistilled: str | None
    doubts: list[Line]
    note: str


def attach(pairs: list[dict[str, Any]], suite: str, table: Table, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Add `published` to every row of `pairs` (of `bcd.report.tables.measure`); returns the numbered sources.

    `row["published"]` maps a metric to `value` (percent), `undistilled` (percent or null), `source` (a number), `file`,
    `line` and `columns`, the whole line as it stands in the file. A source has `number`, `title`, `url`, `detail` and
    `doubts`, each of which has `title`, `url` and `detail`. Raises UserError as `resolve` does.
    """
    found = {(one.pair, one.method, one.metric): one for one in resolve(suite, table, folder)}
    cited: dict[tuple, list[Shown]] = {}
    for i, pair in enumerate(pairs):
        for row in pair["rows"]:
            row["published"] = {}
            for one in (found[key] for metric in METRICS if (key := (i, row["method"], metric)) in found):
                citation = (*(one.line.columns[column] for column in CITATION), one.note)
                cited.setdefault(citation, []).append(one)
                row["published"][one.metric] = _cell(one) | {"source": list(cited).index(citation) + 1}
    return [{"number": number} | _source(group) for number, group in enumerate(cited.values(), 1)]


def resolve(suite: str, table: Table, folder: Path = FOLDER) -> list[Shown]:
    """The lines that the table's entries name, in their order.

    Raises UserError naming suite, table and entry unless each is about one cell of the table and exactly one line.
    """
    if not table.published:
        return []
    files = {path.name: read_lines(path) for path in sorted(folder.glob("*.csv"))}
    shown: dict[tuple, Shown] = {}
    for i, entry in enumerate(table.published):
        where = f"params/suites/{suite}.yaml: tables.{table.name}.published[{i}]"
        cell = (_pair(entry, table, where), entry.method, entry.metric)
        _check(entry, table, files, where)
        if cell in shown:
            raise UserError(f"{where}: the {entry.metric} of '{entry.method}' has a published number already; keep one")
        lines = files[entry.csv]
        line = _only(entry, lines, folder / entry.csv, where)
        doubts = [other for other in files.get(REPORTS, []) if other.agrees(line, EXPERIMENT) and other != line]
        shown[cell] = Shown(*cell, line, _undistilled(line, lines), doubts, entry.note)
    return list(shown.values())


def read_lines(path: Path) -> list[Line]:
    """The lines of one file; raises UserError naming the line for other columns, no number, or no source."""
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path}: its columns must be {', '.join(COLUMNS)}")
        lines = [Line(path.name, reader.line_num, columns) for columns in reader]
    for line in lines:
        where, columns = f"{path}: line {line.number}", line.columns
        if None in columns or None in columns.values():
            raise UserError(f"{where}: it does not have {len(COLUMNS)} columns; quote texts that contain commas")
        if not NUMBER.fullmatch(columns["value"]):
            raise UserError(f"{where}: the value '{columns['value']}' is no number; write it as it was printed")
        if not columns["source_title"] or not URL.fullmatch(columns["source_url"]):
            raise UserError(f"{where}: a published number needs source_title and source_url")
    return lines


def _pair(entry: Published, table: Table, where: str) -> int:
    students = [pair.student for pair in table.pairs]
    if entry.pair is None and len(students) == 1:
        return 0
    if isinstance(entry.pair, int) and entry.pair < len(students):
        return entry.pair
    if isinstance(entry.pair, str) and students.count(entry.pair) == 1:
        return students.index(entry.pair)
    known = ", ".join(f"{i} {student}" for i, student in enumerate(students))
    raise UserError(f"{where}.pair: name one pair, by its index or by a student that no other pair has: {known}")


def _check(entry: Published, table: Table, files: dict[str, list[Line]], where: str) -> None:
    """Raise UserError unless the entry is about a cell of the table, a file that exists and its columns."""
    rows = ["teacher", *(method if isinstance(method, str) else method.name for method in table.methods)]
    metrics = [metric for metric in METRICS if metric in (*table.metrics, *table.main_metrics)]
    conditions = [column for column in COLUMNS if column not in ("metric", "value")]
    for field, given, known in (
        ("method", [entry.method], rows),
        ("metric", [entry.metric], metrics),
        ("csv", [entry.csv], files),
        ("where", entry.where, conditions),
    ):
        for name in given:
            if name not in known:
                raise UserError(f"{where}.{field}: '{name}' cannot stand here{nearest(name, known)}")


def _only(entry: Published, lines: list[Line], path: Path, where: str) -> Line:
    """The one line that the entry names; its metric is that of the entry."""
    wanted = entry.where | {"metric": METRICS[entry.metric]}

    def others(line: Line) -> list[str]:
        return [column for column, value in wanted.items() if line.columns[column] != value]

    matching = [line for line in lines if not others(line)]
    if len(matching) == 1:
        return matching[0]
    text = ", ".join(f"{column} '{value}'" for column, value in wanted.items())
    if not matching:
        near = sorted(lines, key=lambda line: len(others(line)))[:NAMED]
        raise UserError(f"{where}: no line of {path} has {text}; nearest: {_listed(near, others)}")
    apart = [c for c in COLUMNS if c not in ("value", "note") and len({line.columns[c] for line in matching}) > 1]
    raise UserError(
        f"{where}: {len(matching)} lines of {path} have {text}; add to `where` what tells them apart: "
        f"{_listed(matching[:NAMED], lambda line: apart)}"
    )


def _listed(lines: list[Line], columns: Callable[[Line], list[str]]) -> str:
    """`line 3 (schedule '2x'); line 9 (schedule '1x')`: of each line the columns that `columns(line)` names."""
    facts = [", ".join(f"{column} '{line.columns[column]}'" for column in columns(line)) for line in lines]
    return "; ".join(f"line {line.number} ({fact})" for line, fact in zip(lines, facts, strict=True))


def _undistilled(line: Line, lines: list[Line]) -> str | None:
    if line.columns["method"] == "none":
        return None
    same = {"source_url", "schedule", *EXPERIMENT} - {"method"}
    plain = {"method": "none", "role": "student"}.items()
    found = [other.columns["value"] for other in lines if other.agrees(line, same) and plain <= other.columns.items()]
    return found[0] if len(found) == 1 else None


def _cell(one: Shown) -> dict[str, Any]:
    return {
        "value": float(one.line.columns["value"]),
        "undistilled": None if one.undistilled is None else float(one.undistilled),
        "file": one.line.file,
        "line": one.line.number,
        "columns": one.line.columns,
    }


def _source(group: list[Shown]) -> dict[str, Any]:
    """The note of numbers that share one: what they are about, and the doubts about any of them."""
    about, doubts = [], []
    for one in group:
        columns = one.line.columns
        renamed = columns["method"] if columns["method"].casefold() not in ("none", one.method.casefold()) else ""
        plain = f"({columns['metric']} {one.undistilled} undistilled)" if one.undistilled is not None else ""
        about.append(" ".join(filter(None, [renamed, columns["model"], columns["backbone"], plain])))
        doubts += [doubt for doubt in one.doubts if doubt not in doubts]
    source = _reference(group[0].line, ", ".join(dict.fromkeys(about)), group[0].note)
    return source | {"doubts": [_reference(doubt, _finding(doubt.columns)) for doubt in doubts]}


def _finding(columns: dict[str, str]) -> str:
    return " ".join(columns[name] for name in ("method", "model", "backbone", "metric", "value"))


def _reference(line: Line, about: str, note: str = "") -> dict[str, str]:
    columns = line.columns
    schedule = columns["schedule"] and f"schedule {columns['schedule']}"
    detail = "; ".join(filter(None, [about, columns["crop_or_input"], schedule, columns["note"], note]))
    return {"title": columns["source_title"], "url": columns["source_url"], "detail": detail}
