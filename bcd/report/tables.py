"""The files of a suite's tables: written from its runs, and shown again."""

from __future__ import annotations

from pathlib import Path

from bcd.config.schema.suites import Params, Suite, Table
from bcd.errors import pick
from bcd.files import atomic_write
from bcd.report.content import TableContent
from bcd.report.measure import measure
from bcd.report.outputs import run_hashes, table_file, table_made_of
from bcd.report.render import latex, long_csv, markdown, terminal
from bcd.report.render.text import WIDTH
from bcd.runs.expand import runs_of, table_rows


def build(
    params: Params,
    suite: Suite,
    table_name: str,
    results: Path = Path("results"),
    data: Path = Path("data"),
    *,
    figure: bool = True,
    partial: bool = False,
) -> list[Path]:
    """Write the table in all its formats, and its figure, where `table_file` says; returns their paths.

    Equal results give equal bytes. Raises UserError naming every run that is missing or was made from other
    parameters, data or another teacher. `partial` leaves these out, says so and writes other files. A run made by code
    that has changed since only gets a note.
    """
    table = find_table(suite, table_name)
    content = measure(params, suite, table, results, data, partial=partial)
    if not partial:
        hashes = run_hashes(suite.name, runs_of(table_rows(params, suite, table)), results)
        content = content.model_copy(update={"made_of": table_made_of(suite, table, hashes)})
    files: dict[str, str | bytes] = {
        "md": markdown.render(content),
        "tex": latex.render(content),
        "csv": long_csv.render(content),
        "json": content.to_json(),
    }
    if figure:
        from bcd.report.figures import forest  # matplotlib takes a second to import

        files["png"] = forest(content)
    paths = {kind: table_file(results, suite.name, table_name, kind, partial=partial) for kind in files}
    for kind, path in paths.items():
        atomic_write(path, files[kind])
    return list(paths.values())


def show(results: Path, suite: str, table_name: str, *, partial: bool = False, columns: int = WIDTH) -> str:
    """The main metrics of a built table as plain text for a terminal, its sentences wrapped to `columns`.

    Raises UserError if it is not built, or was built by a version that writes it otherwise.
    """
    path = table_file(results, suite, table_name, "json", partial=partial)
    remedy = f"`bcd tables --suite {suite} --table {table_name}{' --partial' if partial else ''}`"
    return terminal.render(TableContent.from_json(path, remedy), columns)


def find_table(suite: Suite, name: str) -> Table:
    """The suite's table `name`; raises UserError with the nearest name if there is none."""
    return pick({table.name: table for table in suite.tables}, name, f"params/suites/{suite.name}.yaml: tables")
