"""Tables of a suite, from the small JSON files of its runs and the evaluation rows in the store.

`measure` computes everything that a table says as one plain JSON value. The `.json` file is that value; Markdown,
LaTeX, CSV, the terminal and the figure are renderings of it, so they cannot disagree. docs/tables.md says how to
read them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcd import caption, config, render, store
from bcd.files import atomic_write
from bcd.finished import Finished, read_rows, read_runs
from bcd.metrics import summarise
from bcd.schema import Params, Suite, Table
from bcd.spec import Row, table_rows
from bcd.stats import Difference, compare, holm, mean_std

LOWER_IS_BETTER = frozenset({"frag"})
ALPHA = 0.05


def build(
    params: Params, suite: Suite, table_name: str, results: Path = Path("results"), data: Path = Path("data")
) -> list[Path]:
    """Write `results/<suite>/tables/<table>.{md,tex,csv,json}` and return their paths.

    Equal results give equal bytes. Raises UserError naming every run that is missing or was made from other
    parameters, data or another teacher; a run made by code that has changed since only gets a note.
    """
    content = measure(params, suite, table_name, results, data)
    texts = {
        "md": render.markdown(content),
        "tex": render.tex(content),
        "csv": render.long_csv(content),
        "json": store.dump(content),
    }
    paths = {kind: table_file(results, suite.name, table_name, kind) for kind in texts}
    for kind, path in paths.items():
        atomic_write(path, texts[kind])
    return list(paths.values())


def show(results: Path, suite: str, table_name: str) -> str:
    """The main metrics of a built table as plain text for a terminal; raises UserError if it is not built."""
    return render.terminal(store.read_json(table_file(results, suite, table_name, "json")))


def table_file(results: Path, suite: str, table_name: str, kind: str) -> Path:
    """Where a table lies; `kind` is md, tex, csv or json."""
    return results / suite / "tables" / f"{table_name}.{kind}"


def find_table(suite: Suite, name: str) -> Table:
    """The suite's table `name`; raises UserError with the nearest name if there is none."""
    return config.pick({table.name: table for table in suite.tables}, name, f"params/suites/{suite.name}.yaml: tables")


def measure(params: Params, suite: Suite, table_name: str, results: Path, data: Path) -> dict[str, Any]:
    """Everything a table says, as JSON values; a number that is undefined (nan) is null.

    Keys: `suite`, `table`, `caption`, `notes`, `seeds`, `metrics`, `main_metrics`, `comparisons` (size of the Holm
    family), `pairs` (data and model facts) and `rows`. A row has `pair` (index into `pairs`), `method`, `runs` (see
    `_trace`) and `cells`, by metric (see `_cell`).
    """
    table = find_table(suite, table_name)
    rows = table_rows(params, suite, table)
    finished = read_runs(suite.name, [run for row in rows for run in row.runs], results, data)
    counts = {run.key: read_rows(finished[run.key]) for row in rows for run in row.runs}
    values = {key: summarise(rows_of_run) for key, rows_of_run in counts.items()}
    metrics = list(dict.fromkeys([*suite.metrics, *suite.main_metrics]))
    index = {row.runs[0].key: table.pairs.index(row.pair) for row in rows}
    baselines = {index[row.runs[0].key]: row for row in rows if row.method == "none"}

    def compared(row: Row) -> dict[str, Difference]:
        """Main metric -> difference to `none` of the same pair; nothing for the teacher and for `none` itself."""
        if row.method in ("teacher", "none"):
            return {}
        ours, theirs = ([counts[run.key] for run in r.runs] for r in (row, baselines[index[row.runs[0].key]]))
        return compare(ours, theirs, metrics=suite.main_metrics)
