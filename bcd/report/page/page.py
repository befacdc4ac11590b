"""The page of a suite: what its tables, records and kept predictions say, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcd.config.schema.suites import Params, Suite
from bcd.errors import UserError
from bcd.files import atomic_write
from bcd.report.content import TEACHER, PairBlock, TableContent, Trace
from bcd.report.outputs import page_file, page_made_of, run_hashes, table_file, table_made_of
from bcd.report.page import cells, costs
from bcd.report.page.curves import curve
from bcd.report.page.images import Album, viewer
from bcd.report.page.render import About, render
from bcd.report.panels.pictures import same_images
from bcd.runs import store
from bcd.runs.expand import distinct_runs, runs_of, suite_rows
from bcd.runs.record import Record
from bcd.runs.status import Status
from bcd.runs.usable import find_runs
from bcd.train.history import FILE, VALIDATION


def build(
    params: Params,
    suite: Suite,
    results: Path = Path("results"),
    data: Path = Path("data"),
    *,
    partial: bool = False,
) -> Path:
    """Write the page of a suite where `page_file` says, from its tables as they are built; returns its path.

    Equal results, records and predictions give equal bytes. `partial` takes the partial tables, and leaves out what is
    not there. Raises UserError if a table is not built or is not today's, or if predictions or a dataset are missing.
    """
    rows = suite_rows(params, suite)
    today = {} if partial else {
        table.name: table_made_of(suite, table, run_hashes(suite.name, runs_of(rows[table.name]), results))
        for table in suite.tables
    }  # fmt: skip
    contents = [_content(suite.name, table.name, results, today.get(table.name)) for table in suite.tables]
    usable, _ = find_runs(suite.name, distinct_runs(suite.name, rows).values(), results, data)
    album, records = Album(), _records(contents, results)
    tables = [_table(content, usable, records, results, data, album) for content in contents]
    about = About(
        suite=suite.name,
        description=suite.description,
        captions={table.name: table.caption for table in suite.tables},
        folder=f"results/{suite.name}/{'partial' if partial else 'tables'}",
        command=f"bcd report --suite {suite.name}{' --partial' if partial else ''}",
        made_of="" if partial else page_made_of(today),
    )
    path = page_file(results, suite.name, partial=partial)
    atomic_write(path, render(about, contents, tables, records, album.pictures))
    return path


def _content(suite: str, table: str, results: Path, made_of: str | None) -> TableContent:
    """A built table; made_of: what a whole one would be made of today, None for a partial one.

    Raises UserError if it is not there, or is not that.
    """
    partial = made_of is None
    path = table_file(results, suite, table, "json", partial=partial)
    remedy = f"`bcd tables --suite {suite} --table {table}{' --partial' if partial else ''}`"
    content = TableContent.from_json(path, remedy)
    if not partial and content.made_of != made_of:
        raise UserError(f"{path} was made of other runs, or otherwise, than today's params say; run {remedy} first")
    return content


def _records(contents: Iterable[TableContent], results: Path) -> dict[str, Record]:
    """Key -> record of each run of the tables."""
    runs = [run for one in contents for pair in one.pairs for row in pair.rows for run in row.runs]
    found = {run.key: store.record(results / run.store) for run in runs}
    return {key: record for key, record in found.items() if record}


def _table(
    content: TableContent,
    usable: Mapping[str, Status],
    records: Mapping[str, Record],
    results: Path,
    data: Path,
    album: Album,
) -> dict[str, Any]:
    """All that the page shows of a table, as JSON values."""
    shown = cells.table(content)
    for block, pair in zip(shown["blocks"], content.pairs, strict=True):
        first = _first_runs(pair, content.baseline, usable)
        block["viewer"] = viewer(first, data, album) if first else None
        block["curves"] = [] if pair.export else _curves(pair, results)
        for row, measured in zip(block["rows"], pair.rows, strict=True):
            row["commits"] = _commits(measured.runs, records)
    return shown | {"costs": costs.costs(content, records)}


def _first_runs(pair: PairBlock, baseline: str, usable: Mapping[str, Status]) -> dict[str, Status]:
    """Method -> its first run; without a teacher that was evaluated on other images than the students."""
    first = {row.method: usable[row.runs[0].key] for row in pair.rows if row.runs and row.runs[0].key in usable}
    students = [one for method, one in first.items() if method != TEACHER]
    if TEACHER in first and students and not same_images(first[TEACHER].run, students[0].run):
        del first[TEACHER]
    return first


def _curves(pair: PairBlock, results: Path) -> list[dict[str, Any]]:
    """The losses of every run of a pair, and apart from these its metrics on validation images, where it has any."""
    curves = [
        {"method": row.method, "run": run.repetition, **curve(results / run.store, file)}
        for row in pair.rows
        for run in row.runs
        for file in (FILE, VALIDATION)
    ]
    return [one for one in curves if one["steps"]]


def _commits(runs: Sequence[Trace], records: Mapping[str, Record]) -> list[str]:
    """The commits of the code that trained some runs, as far as they are known."""
    return sorted({commit for run in runs if run.key in records and (commit := records[run.key].git.commit)})
