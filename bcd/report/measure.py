"""From the finished runs of a table to everything that it says; its numbers are those of `bcd.report.numbers`.

Inputs are the runs' small JSON files and their evaluation rows in the store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

from bcd.config.schema.suites import Params, Suite, Table
from bcd.errors import UserError
from bcd.report import published
from bcd.report.caption import with_words
from bcd.report.content import (
    Cell,
    Comparison,
    FileCost,
    MeasuredRow,
    ModelFacts,
    PairBlock,
    PartialFacts,
    PublishedCell,
    TableContent,
    Trace,
)
from bcd.report.numbers import (
    BASELINE,
    PYTORCH,
    Decided,
    Numbers,
    Paired,
    Place,
    Usable,
    decide,
    families_of,
    largest_family,
    metrics_of,
    numbers_of,
    read_row,
)
from bcd.report.stats import detectable, mean_std, seeds_needed
from bcd.runs.expand import Row, blocks, table_rows
from bcd.runs.jsonfile import read_as
from bcd.runs.record import Report, RunResult
from bcd.runs.status import Status
from bcd.runs.usable import find_runs, refusal

LOWER_IS_BETTER = frozenset({"frag"})


def measure(
    params: Params, suite: Suite, table: Table, results: Path, data: Path, *, partial: bool = False
) -> TableContent:
    """Everything that a table of the suite says.

    results, data: the folders `results` and `data` of the project. With `partial` a row has the runs that there are,
    and a difference is over the seeds that row and baseline share. Without it, UserError names every run that cannot be
    used.
    """
    rows = table_rows(params, suite, table)
    wanted = {run.key: run for row in rows for run in row.runs}
    usable, missing = find_runs(suite.name, wanted.values(), results, data)
    if missing and not partial:
        raise UserError(refusal(suite.name, usable, missing, ", or see what there is with `bcd tables --partial`"))
    metrics = metrics_of(table)
    read = [{row.method: read_row(row, usable, table, metrics) for row in block} for block in blocks(rows)]
    forms = 1 + len(table.exports)  # of each pair, PyTorch's first
    numbers = [numbers_of(one, read[i - i % forms] if i % forms else {}, table) for i, one in enumerate(read)]
    families = [decide(family) for family in families_of(numbers, forms).values()]
    decided = {place: one for family in families for place, one in family.items()}
    beside, sources = published.look_up(suite.name, table)
    measured = [
        [
            _row(i, method, one, decided, {} if i % forms else beside.get((i // forms, method), {}), results)
            for method, one in methods.items()
        ]
        for i, methods in enumerate(numbers)
    ]
    content = TableContent(
        suite=suite.name,
        table=table.name,
        seeds=table.seeds,
        baseline=table.baseline,
        metrics=metrics,
        main_metrics=table.main_metrics,
        comparisons=largest_family(families, BASELINE),
        comparisons_to_pytorch=largest_family(families, PYTORCH),
        sources=sources,
        pairs=[_block(block, usable, made) for block, made in zip(blocks(rows), measured, strict=True)],
        partial=PartialFacts(runs=len(wanted), missing=missing) if partial else None,
    )
    return with_words(content, suite.description, table.caption)


def number(value: float) -> float | None:
    """None for what is undefined, which JSON cannot write."""
    return float(value) if math.isfinite(value) else None


# --- content -------------------------------------------------------------------------------------------------------


def _row(
    block: int,
    method: str,
    numbers: Numbers,
    decided: Mapping[Place, Decided],
    beside: dict[str, PublishedCell],
    results: Path,
) -> MeasuredRow:
    """One row of the block with that index."""

    def compared(against: str, metric: str) -> Comparison | None:
        found = numbers.against.get(against)
        if found is None or metric not in found.differences:
            return None
        return _comparison(metric, found, decided[block, against, method, metric])

    cells = {}
    for metric, values in numbers.values.items():
        mean, std = mean_std(values)
        cells[metric] = Cell(
            values=[number(v) for v in values],
            mean=number(mean),
            std=number(std),
            difference=compared(BASELINE, metric),
            to_pytorch=compared(PYTORCH, metric),
        )
    return MeasuredRow(
        method=method,
        runs=[trace(one, results) for one in numbers.runs],
        cells=cells,
        published=beside,
        file=_file_cost(numbers.runs),
    )


def _comparison(metric: str, paired: Paired, decided: Decided) -> Comparison:
    found, sign = paired.differences[metric], -1 if metric in LOWER_IS_BETTER else 1
    seeds = len(paired.paired[metric])
    needed = None if decided.significant else seeds_needed(found, decided.level, seeds=seeds, images=paired.images)
    return Comparison(
        values=[number(value) for value in paired.paired[metric]],
        mean=number(found.mean),
        low=number(found.low),
        high=number(found.high),
        p=number(found.p),
        significant=decided.significant,
        better=sign * found.mean > 0,
        detectable=None if decided.significant else number(detectable(found, decided.level)),
        seeds_needed=needed,
    )


def _file_cost(runs: Sequence[Status]) -> FileCost | None:
    """None for runs in PyTorch."""
    files = [one.finished.evaluation.exported for one in runs]
    sizes = [file.bytes for file in files if file]
    if not sizes:
        return None
    reports = [read_as(Report, one.rows_file.with_suffix(".json"), one.measure_again) for one in runs]
    ratios = [report.latency.ratio for report in reports if report.latency]
    return FileCost(bytes=fmean(sizes), time=median(ratios) if ratios else None)


def trace(one: Status, results: Path) -> Trace:
    """Where the numbers of a usable run come from."""
    result, folder = one.finished, one.place

    def below(path: Path) -> str:
        return path.relative_to(results).as_posix()

    return Trace(
        key=one.run.key,
        seed=result.seed,
        file=below(one.file),
        store=below(folder),
        record=below(folder / "record.json"),
        rows=below(one.rows_file),
        rows_sha256=result.evaluation.rows_sha256,
        evaluation=result.evaluation.hash,
        stale=one.stale,
        standing=result.standing,
    )


def _block(block: Sequence[Row], usable: Usable, rows: list[MeasuredRow]) -> PairBlock:
    """The rows of a pair with what the caption says of its data and models.

    All students of a pair are the same model, evaluated on the same images.
    """
    pair = block[0].pair
    there = [usable[run.key] for row in block for run in row.runs if run.key in usable]
    teacher = next((one.finished for one in there if not one.run.teacher), None)
    student = next((one.finished for one in there if one.run.teacher), None)
    return PairBlock(
        dataset=pair.dataset,
        teacher_dataset=pair.teacher_dataset or pair.dataset,
        split=student.evaluation.split if student else None,
        images=student.evaluation.images if student else None,
        data=student.data if student else None,
        teacher=_model(pair.teacher, teacher),
        student=_model(pair.student, student),
        export=block[0].export,
        exported=student.evaluation.exported if student else None,
        rows=rows,
    )


def _model(name: str, result: RunResult | None) -> ModelFacts:
    return ModelFacts(
        name=name,
        parameters=result.parameters if result else None,
        macs=result.macs if result else None,
        macs_input=result.macs_input if result else None,
        pretrained=result.pretrained if result else None,
    )
