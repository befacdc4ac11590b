"""Numbers that others published, shown beside a table's own: lines of `params/published/*.csv`, each with its source.

A table's `published` entries (`bcd.config.schema.suites.Published`) say which line stands beside which cell.
`look_up` finds them for a table's content. They never enter a mean, a difference or a test.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bcd.config.schema.suites import Published, Table
from bcd.errors import UserError, nearest
from bcd.files import read_text
from bcd.report.content import TEACHER, PublishedCell, Reference, Source

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
class PublishedLine:
    """One line of a CSV file; `number` counts from 1, which is the header."""

    file: str
    number: int
    columns: dict[str, str]

    def agrees(self, other: PublishedLine, columns: Collection[str]) -> bool:
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
    line: PublishedLine
    undistilled: str | None
    doubts: list[PublishedLine]
    note: str


def look_up(
    suite: str, table: Table, folder: Path = FOLDER
) -> tuple[dict[tuple[int, str], dict[str, PublishedCell]], list[Source]]:
    """The published numbers of a table and their sources, which are numbered in reading order.

    Returns (pair, method) -> metric -> number, and the sources. Raises UserError as `resolve` does.
    """
    found = {(one.pair, one.method, one.metric): one for one in resolve(suite, table, folder)}
    cells: dict[tuple[int, str], dict[str, PublishedCell]] = {}
    cited: dict[tuple[str, ...], list[Shown]] = {}
    places = product(range(len(table.pairs)), (TEACHER, *table.method_names), METRICS)
    for shown in (found[place] for place in places if place in found):
        citation = (*(shown.line.columns[column] for column in CITATION), shown.note)
        cited.setdefault(citation, []).append(shown)
        source = list(cited).index(citation) + 1
        cells.setdefault((shown.pair, shown.method), {})[shown.metric] = _cell(shown, source)
    return cells, [_source(number, group) for number, group in enumerate(cited.values(), 1)]


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


def read_lines(path: Path) -> list[PublishedLine]:
    """The lines of one file; raises UserError naming the line for other columns, no number, or no source."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path}: its columns must be {', '.join(COLUMNS)}")
        lines = [PublishedLine(path.name, reader.line_num, columns) for columns in reader]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.reader.line_num}: {error}; mend the line") from None
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


def _check(entry: Published, table: Table, files: dict[str, list[PublishedLine]], where: str) -> None:
    """Raise UserError unless the entry is about a cell of the table, a file that exists and its columns."""
    rows = [TEACHER, *table.method_names]
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


def _only(entry: Published, lines: list[PublishedLine], path: Path, where: str) -> PublishedLine:
    """The one line that the entry names; its metric is that of the entry."""
    wanted = entry.where | {"metric": METRICS[entry.metric]}

    def others(line: PublishedLine) -> list[str]:
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


def _listed(lines: list[PublishedLine], columns: Callable[[PublishedLine], list[str]]) -> str:
    """`line 3 (schedule '2x'); line 9 (schedule '1x')`: of each line the columns that `columns(line)` names."""
    facts = [", ".join(f"{column} '{line.columns[column]}'" for column in columns(line)) for line in lines]
    return "; ".join(f"line {line.number} ({fact})" for line, fact in zip(lines, facts, strict=True))


def _undistilled(line: PublishedLine, lines: list[PublishedLine]) -> str | None:
    if line.columns["method"] == "none":
        return None
    same = {"source_url", "schedule", *EXPERIMENT} - {"method"}
    plain = {"method": "none", "role": "student"}.items()
    found = [other.columns["value"] for other in lines if other.agrees(line, same) and plain <= other.columns.items()]
    return found[0] if len(found) == 1 else None


def _cell(shown: Shown, source: int) -> PublishedCell:
    return PublishedCell(
        value=float(shown.line.columns["value"]),
        undistilled=None if shown.undistilled is None else float(shown.undistilled),
        source=source,
        file=shown.line.file,
        line=shown.line.number,
        columns=shown.line.columns,
    )


def _source(number: int, group: list[Shown]) -> Source:
    """The note of numbers that share one: what they are about, and the doubts about any of them."""
    line, about = group[0].line, ", ".join(dict.fromkeys(map(_about, group)))
    doubts: list[PublishedLine] = []
    for shown in group:
        doubts += [doubt for doubt in shown.doubts if doubt not in doubts]
    return Source(
        title=line.columns["source_title"],
        url=line.columns["source_url"],
        detail=_detail(line, about, group[0].note),
        number=number,
        doubts=[_doubt(doubt) for doubt in doubts],
    )


def _about(shown: Shown) -> str:
    """`FGD RetinaNet R50 (box AP 37.40 undistilled)`; the method only where our row is called otherwise."""
    columns = shown.line.columns
    renamed = columns["method"] if columns["method"].casefold() not in ("none", shown.method.casefold()) else ""
    plain = f"({columns['metric']} {shown.undistilled} undistilled)" if shown.undistilled is not None else ""
    return " ".join(filter(None, [renamed, columns["model"], columns["backbone"], plain]))


def _doubt(line: PublishedLine) -> Reference:
    columns = line.columns
    finding = " ".join(columns[name] for name in ("method", "model", "backbone", "metric", "value"))
    return Reference(title=columns["source_title"], url=columns["source_url"], detail=_detail(line, finding))


def _detail(line: PublishedLine, about: str, note: str = "") -> str:
    """`about; input; schedule; the line's note; the entry's note`, as far as there are any."""
    columns = line.columns
    schedule = columns["schedule"] and f"schedule {columns['schedule']}"
    return "; ".join(filter(None, [about, columns["crop_or_input"], schedule, columns["note"], note]))
