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

from bcd import caption, config, published, render, store
from bcd.files import atomic_write
from bcd.finished import Finished, read_rows, read_runs
from bcd.metrics import summariser
from bcd.schema import Params, Suite, Table
from bcd.spec import Row, table_rows
from bcd.stats import Difference, compare, holm, mean_std

LOWER_IS_BETTER = frozenset({"frag"})
ALPHA = 0.05


def build(
    params: Params,
    suite: Suite,
    table_name: str,
    results: Path = Path("results"),
    data: Path = Path("data"),
    *,
    figure: bool = True,
) -> list[Path]:
    """Write `results/<suite>/tables/<table>.{md,tex,csv,json}` and the table's figure; returns their paths.

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
    if not figure:
        return list(paths.values())
    from bcd.figures import plot  # matplotlib takes a second to import

    return [*paths.values(), plot(results, suite.name, table_name)]


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

    Keys: `suite`, `table`, `caption`, `notes`, `seeds`, `baseline`, `metrics`, `main_metrics`, `comparisons` (size of
    the Holm family), `sources` (of published numbers) and `pairs`. A pair has facts on its data and models and `rows`;
    a row has `method`, `runs` (see `_trace`), `cells`, by metric (see `_cell`), and `published` (see
    `bcd.published.attach`).
    """
    table = find_table(suite, table_name)
    rows = table_rows(params, suite, table)
    finished = read_runs(suite.name, [run for row in rows for run in row.runs], results, data)
    metrics = list(dict.fromkeys([*table.metrics, *table.main_metrics]))
    pairs = []
    for pair in table.pairs:
        block = [row for row in rows if row.pair == pair]
        measured = _rows(block, finished, table, metrics, results)
        pairs.append(_facts(block, finished) | {"rows": measured})
    content = {
        "suite": suite.name,
        "table": table.name,
        "seeds": table.seeds,
        "baseline": table.baseline,
        "metrics": metrics,
        "main_metrics": table.main_metrics,
        "comparisons": _correct(pairs),
        "sources": published.attach(pairs, suite.name, table),
        "pairs": pairs,
    }
    return content | {
        "caption": caption.caption(content, suite.description, table.caption),
        "notes": caption.notes(content),
    }


def _rows(
    block: Sequence[Row],
    finished: Mapping[str, Finished],
    table: Table,
    metrics: list[str],
    results: Path,
) -> list[dict[str, Any]]:
    """The rows of one pair; each but the teacher's is compared with the table's baseline."""
    baseline, summarise = table.baseline, summariser(table.task, metrics)
    counts = {row.method: [read_rows(finished[run.key]) for run in row.runs] for row in block}
    values = {method: [summarise(rows) for rows in runs] for method, runs in counts.items()}
    measured = []
    for row in block:
        compared = row.method not in ("teacher", baseline)
        found = {}
        if compared:
            pair = counts[row.method], counts[baseline]
            wanted = table.main_metrics
            found = compare(*pair, metrics=wanted, summarise=summariser(table.task, wanted))
        cells = {}
        for metric in metrics:
            own, other = ([run[metric] for run in values[method]] for method in (row.method, baseline))
            cells[metric] = _cell(own, other, found.get(metric))
        runs = [_trace(finished[run.key], results) for run in row.runs]
        measured.append({"method": row.method, "runs": runs, "cells": cells})
    return measured


def _cell(own: list[float], other: list[float], found: Difference | None) -> dict[str, Any]:
    """`values` in the order of the row's runs, their `mean` and `std` (ddof 1), and `difference`.

    `difference` is null where nothing is compared, else the paired `values`, their `mean`, the 95 % interval `low` to
    `high` and `p`; `_correct` adds `significant` and `better`.
    """
    mean, std = mean_std(own)
    cell = {"values": [_number(v) for v in own], "mean": _number(mean), "std": _number(std), "difference": None}
    if found is not None:
        paired = [_number(a - b) for a, b in zip(own, other, strict=True)]
        numbers = {name: _number(getattr(found, name)) for name in ("mean", "low", "high", "p")}
        cell["difference"] = {"values": paired, **numbers}
    return cell


def _correct(pairs: list[dict[str, Any]]) -> int:
    """Mark every difference of the table as significant or not after Holm's correction; returns how many there are."""
    tested = {
        (i, row["method"], metric): cell["difference"]
        for i, pair in enumerate(pairs)
        for row in pair["rows"]
        for metric, cell in row["cells"].items()
        if cell["difference"]
    }
    pvalues = {key: math.nan if one["p"] is None else one["p"] for key, one in tested.items()}
    for key, significant in holm(pvalues, ALPHA).items():
        sign = -1 if key[-1] in LOWER_IS_BETTER else 1
        better = tested[key]["mean"] is not None and sign * tested[key]["mean"] > 0
        tested[key] |= {"significant": significant, "better": better}
    return len(tested)


def _trace(one: Finished, results: Path) -> dict[str, Any]:
    """Where the numbers of one run come from; paths are relative to the results folder."""
    return {
        "key": one.run.key,
        "seed": one.edge["seed"],
        "file": one.file.relative_to(results).as_posix(),
        "store": one.folder.relative_to(results).as_posix(),
        "record": (one.folder / "record.json").relative_to(results).as_posix(),
        "rows": one.rows_file.relative_to(results).as_posix(),
        "rows_sha256": one.edge["evaluation"]["rows_sha256"],
        "evaluation": one.edge["evaluation"]["hash"],
        "stale": one.stale,
    }


def _facts(block: Sequence[Row], finished: Mapping[str, Finished]) -> dict[str, Any]:
    """What the caption says of a pair's data and models; all students of a pair are the same model."""
    pair = block[0].pair
    teacher, student = (
        next(finished[row.runs[0].key] for row in block if row.method == method) for method in ("teacher", "none")
    )
    return {
        "dataset": pair.dataset,
        "teacher_dataset": pair.teacher_dataset or pair.dataset,
        "split": student.edge["evaluation"]["split"],
        "images": student.edge["evaluation"]["images"],
        "data": student.edge["data"],
        "teacher": _model_facts(teacher),
        "student": _model_facts(student),
    }


def _model_facts(one: Finished) -> dict[str, Any]:
    facts = {name: one.edge[name] for name in ("parameters", "macs", "macs_input", "pretrained")}
    return {"name": one.run.model_name, **facts}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
