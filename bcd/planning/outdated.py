"""Which outputs on disk are not what today's params, data and store ask for.

The DAG engines compare times, and notes that they took when they made a file. These do not see a parameter that was
edited while a job ran, a run that was made by hand, or results that were carried without the notes. So the Snakefile
asks here, too, and has such outputs made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from bcd.config.schema.suites import Params, Suite
from bcd.data.acquire import manifest
from bcd.data.acquire.fetch import answers
from bcd.data.acquire.look import looked_at
from bcd.data.acquire.obtain import asked, looked_at_by
from bcd.errors import UserError
from bcd.report.outputs import (
    html_made_of,
    json_made_of,
    page_file,
    page_made_of,
    panels_file,
    panels_made_of,
    png_made_of,
    run_hashes,
    table_file,
    table_made_of,
)
from bcd.runs.expand import Row, distinct_runs, runs_of
from bcd.runs.run import Run
from bcd.runs.spec import RESULTS
from bcd.runs.status import DATA, judge_all
from bcd.tracking.state import state_file, unsynced


def outdated(
    params: Params, suite: Suite, rows: dict[str, list[Row]], results: Path = RESULTS, data: Path = DATA
) -> dict[Path, str]:
    """Every output of the DAG that is there and is not today's, and why. What is missing is not among them.

    rows: `suite_rows` of the suite.
    """
    runs = distinct_runs(suite.name, rows)
    statuses = judge_all(suite.name, runs.values(), results, data).values()
    found = {status.file: status.why for status in statuses if status.result and not status.usable}
    hashes = run_hashes(suite.name, runs.values(), results)
    found |= dict(_data(params, runs, data)) | dict(_tables(suite, rows, hashes, results))
    if why := unsynced(suite.name, results):
        found[state_file(suite.name, results)] = why
    return found


def _data(params: Params, runs: Mapping[str, Run], data: Path) -> Iterator[tuple[Path, str]]:
    for files in sorted({run.files for run in runs.values()}):
        path = data / files / manifest.MANIFEST
        try:
            found = manifest.load(data / files)
        except UserError as error:
            if path.exists():
                yield path, str(error)
            continue
        if not answers(found, asked(params.datasets[files])):
            yield path, "params ask for other data"
        elif not looked_at(found, looked_at_by(params.datasets[files])):
            yield path, "its samples were not looked at by today's params"


def _tables(
    suite: Suite, rows: Mapping[str, list[Row]], hashes: Mapping[str, str | None], results: Path
) -> Iterator[tuple[Path, str]]:
    why = "was made of other runs, or otherwise, than today's params say"
    today = {}
    for table in suite.tables:
        mine = {run.key: hashes[run.key] for run in runs_of(rows[table.name])}
        today[table.name] = table_made_of(suite, table, mine)
        json, png = table_file(results, suite.name, table.name, "json"), panels_file(results, suite.name, table.name)
        if json.exists() and json_made_of(json) != today[table.name]:
            yield json, why
        if png.exists() and png_made_of(png) != panels_made_of(table, mine):
            yield png, why
    page = page_file(results, suite.name)
    if page.exists() and html_made_of(page) != page_made_of(today):
        yield page, why
