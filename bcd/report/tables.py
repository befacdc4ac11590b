"""Tables of a suite, from the small JSON files of its runs and the evaluation rows in the store.

`measure` computes everything that a table says as one plain JSON value. The `.json` file is that value; Markdown,
LaTeX, CSV, the terminal and the figure are renderings of it, so they cannot disagree. docs/reference/tables.md says
how to read them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bcd.config.schema import Params, Suite, Table
from bcd.errors import UserError, pick
from bcd.files import atomic_write
from bcd.metrics import summariser
from bcd.report import caption, published, render
from bcd.report.stats import Difference, compare, holm, mean_std
from bcd.runs import store
from bcd.runs.expand import Row, table_rows
from bcd.runs.status import Finished, find_runs, read_rows, refusal

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
    partial: bool = False,
) -> list[Path]:
    """Write the table in all its formats, and its figure, where `table_file` says; returns their paths.

    Equal results give equal bytes. Raises UserError naming every run that is missing or was made from other
    parameters, data or another teacher; `partial` leaves these out, says so and writes other files. A run made by code
    that has changed since only gets a note.
    """
    content = measure(params, suite, table_name, results, data, partial=partial)
    texts = {
        "md": render.markdown(content),
        "tex": render.tex(content),
        "csv": render.long_csv(content),
        "json": store.dump(content),
    }
    if figure:
        from bcd.report.figures import forest  # matplotlib takes a second to import

        texts["png"] = forest(content)
    paths = {kind: table_file(results, suite.name, table_name, kind, partial=partial) for kind in texts}
    for kind, path in paths.items():
        atomic_write(path, texts[kind])
    return list(paths.values())


def show(results: Path, suite: str, table_name: str, *, partial: bool = False) -> str:
    """The main metrics of a built table as plain text for a terminal; raises UserError if it is not built."""
    return render.terminal(store.read_json(table_file(results, suite, table_name, "json", partial=partial)))


def table_file(results: Path, suite: str, table_name: str, kind: str, *, partial: bool = False) -> Path:
    """Where a table lies; `kind` is md, tex, csv, json or, for its figure, png.

    A partial table has a folder of its own, which no DAG engine declares, and a name that says what it is.
    """
    if partial:
        return results / suite / "partial" / f"{table_name}.partial.{kind}"
    return results / suite / ("figures" if kind == "png" else "tables") / f"{table_name}.{kind}"


def find_table(suite: Suite, name: str) -> Table:
    """The suite's table `name`; raises UserError with the nearest name if there is none."""
    return pick({table.name: table for table in suite.tables}, name, f"params/suites/{suite.name}.yaml: tables")


def measure(
    params: Params, suite: Suite, table_name: str, results: Path, data: Path, *, partial: bool = False
) -> dict[str, Any]:
    """Everything a table says, as JSON values; a number that is undefined (nan) is null.

    Keys: `suite`, `table`, `caption`, `notes`, `seeds`, `baseline`, `metrics`, `main_metrics`, `comparisons` (size of
    the Holm family), `sources` (of published numbers) and `pairs`. A pair has facts on its data and models and `rows`;
    a row has `method`, `runs` (see `_trace`), `cells`, by metric (see `_cell`), and `published` (see
    `bcd.report.published.attach`). With `partial` a row has the runs that there are, a difference is over the seeds
    that row
    and baseline share, and there is one key more: `partial`, with `runs`, how many the whole table has, and `missing`,
    by reason the keys of those left out.
    """
    table = find_table(suite, table_name)
    rows = table_rows(params, suite, table)
    wanted = {run.key: run for row in rows for run in row.runs}
    finished, missing = find_runs(suite.name, wanted.values(), results, data)
    if missing and not partial:
        raise UserError(f"{refusal(suite.name, missing)}, or see what there is with `bcd tables --partial`")
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
    if partial:
        content["partial"] = {"runs": len(wanted), "missing": missing}
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
    """The rows of one pair; each but the teacher's is compared with the table's baseline, over the seeds of both."""
    baseline, summarise = table.baseline, summariser(table.task, metrics)
    there = {row.method: [finished[run.key] for run in row.runs if run.key in finished] for row in block}
    counts = {method: {one.run.repetition: read_rows(one) for one in runs} for method, runs in there.items()}
    values = {method: {seed: summarise(rows) for seed, rows in seeds.items()} for method, seeds in counts.items()}
    main = {"metrics": table.main_metrics, "summarise": summariser(table.task, table.main_metrics)}
    measured = []
    for method, runs in there.items():
        own, other, found = values[method], values[baseline], {}
        shared = [] if method in ("teacher", baseline) else [seed for seed in own if seed in other]
        if shared:
            found = compare(*([counts[one][seed] for seed in shared] for one in (method, baseline)), **main)
        cells = {}
        for metric in metrics:
            paired = [own[seed][metric] - other[seed][metric] for seed in shared]
            cells[metric] = _cell([run[metric] for run in own.values()], paired, found.get(metric))
        measured.append({"method": method, "runs": [_trace(one, results) for one in runs], "cells": cells})
    return measured


def _cell(values: list[float], paired: list[float], found: Difference | None) -> dict[str, Any]:
    """`values` in the order of the row's runs, their `mean` and `std` (ddof 1), and `difference`.

    `difference` is null where nothing is compared, else the `paired` values, their `mean`, the 95 % interval `low` to
    `high` and `p`; `_correct` adds `significant` and `better`.
    """
    mean, std = mean_std(values)
    cell = {"values": [_number(v) for v in values], "mean": _number(mean), "std": _number(std), "difference": None}
    if found is not None:
        numbers = {name: _number(getattr(found, name)) for name in ("mean", "low", "high", "p")}
        cell["difference"] = {"values": [_number(v) for v in paired], **numbers}
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
    """What the caption says of a pair's data and models; null where no run tells.

    All students of a pair are the same model, evaluated on the same images.
    """
    pair = block[0].pair
    there = [finished[run.key] for row in block for run in row.runs if run.key in finished]
    teacher = next((one for one in there if not one.run.teacher), None)
    student = next((one for one in there if one.run.teacher), None)
    evaluation = student.edge["evaluation"] if student else dict.fromkeys(("split", "images"))
    return {
        "dataset": pair.dataset,
        "teacher_dataset": pair.teacher_dataset or pair.dataset,
        "split": evaluation["split"],
        "images": evaluation["images"],
        "data": student and student.edge["data"],
        "teacher": _model_facts(pair.teacher, teacher),
        "student": _model_facts(pair.student, student),
    }


def _model_facts(name: str, one: Finished | None) -> dict[str, Any]:
    facts = ("parameters", "macs", "macs_input", "pretrained")
    return {"name": name, **{fact: one and one.edge[fact] for fact in facts}}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
