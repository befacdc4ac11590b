"""From the finished runs of a table to everything that it says.

Inputs are the runs' small JSON files and their evaluation rows in the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bcd.config.schema.suites import Params, Suite, Table
from bcd.errors import UserError
from bcd.metrics import summariser
from bcd.report import published
from bcd.report.caption import with_words
from bcd.report.content import (
    TEACHER,
    Cell,
    Comparison,
    MeasuredRow,
    ModelFacts,
    PairBlock,
    PartialFacts,
    PublishedCell,
    TableContent,
    Trace,
)
from bcd.report.stats import Difference, compare, detectable, holm, mean_std
from bcd.runs.expand import Row, table_rows
from bcd.runs.record import RunResult
from bcd.runs.status import Status
from bcd.runs.usable import find_runs, read_rows, refusal

LOWER_IS_BETTER = frozenset({"frag"})
ALPHA = 0.05

Usable = Mapping[str, Status]  # by run key
Place = tuple[int, str, str]  # index of the pair, method, metric
Published = Mapping[tuple[int, str], dict[str, PublishedCell]]  # index of the pair, method -> by metric


@dataclass(frozen=True)
class Numbers:
    """What the runs of one method say, before the table's correction.

    values: metric -> of each run
    paired: metric -> differences to the baseline, over the seeds of both
    differences: what these amount to in the main metrics; empty where nothing is compared
    """

    runs: list[Status]
    values: dict[str, list[float]]
    paired: dict[str, list[float]]
    differences: dict[str, Difference]


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
        raise UserError(f"{refusal(suite.name, missing)}, or see what there is with `bcd tables --partial`")
    metrics = list(dict.fromkeys([*table.metrics, *table.main_metrics]))
    size = len(rows) // len(table.pairs)  # each pair has its teacher and the same methods
    blocks = [rows[start : start + size] for start in range(0, len(rows), size)]
    numbers = [_numbers(block, usable, table, metrics) for block in blocks]
    rejected = holm(_family(numbers), ALPHA)
    # What Holm's procedure asks of each comparison that it has not rejected, given those that it has.
    level = ALPHA / max(1, list(rejected.values()).count(False))
    beside, sources = published.look_up(suite.name, table)
    measured = [
        [_row(i, method, one, rejected, level, beside, results) for method, one in methods.items()]
        for i, methods in enumerate(numbers)
    ]
    content = TableContent(
        suite=suite.name,
        table=table.name,
        seeds=table.seeds,
        baseline=table.baseline,
        metrics=metrics,
        main_metrics=table.main_metrics,
        comparisons=len(rejected),
        sources=sources,
        pairs=[_block(block, usable, rows) for block, rows in zip(blocks, measured, strict=True)],
        partial=PartialFacts(runs=len(wanted), missing=missing) if partial else None,
    )
    return with_words(content, suite.description, table.caption)


# --- numbers -------------------------------------------------------------------------------------------------------


def _numbers(block: Sequence[Row], usable: Usable, table: Table, metrics: list[str]) -> dict[str, Numbers]:
    """Method -> what its runs say; each but the teacher is compared with the table's baseline."""
    summarise = summariser(table.task, metrics)
    main = summariser(table.task, table.main_metrics)
    there = {row.method: [usable[run.key] for run in row.runs if run.key in usable] for row in block}
    counts = {method: {one.run.repetition: read_rows(one) for one in runs} for method, runs in there.items()}
    values = {
        method: {
            one.run.repetition: _values(one, counts[method][one.run.repetition], summarise, metrics) for one in runs
        }
        for method, runs in there.items()
    }
    baseline, measured = table.baseline, {}
    for method, runs in there.items():
        own, other = values[method], values[baseline]
        shared = [] if method in (TEACHER, baseline) else [seed for seed in own if seed in other]
        both = [[counts[one][seed] for seed in shared] for one in (method, baseline)]
        measured[method] = Numbers(
            runs,
            values={m: [one[m] for one in own.values()] for m in metrics},
            paired={m: [own[seed][m] - other[seed][m] for seed in shared] for m in metrics},
            differences=compare(*both, metrics=table.main_metrics, summarise=main) if shared else {},
        )
    return measured


def _values(
    one: Status, rows: Mapping[str, np.ndarray], summarise: Callable[..., Mapping[str, float]], metrics: list[str]
) -> dict[str, float]:
    """The wanted metrics of a run."""
    try:
        found = summarise(rows)
        return {metric: found[metric] for metric in metrics}
    except KeyError as missing:
        report = one.rows_file.with_suffix(".json")
        raise UserError(
            f"{one.rows_file} lacks {missing}: it is of older code; delete {report} and {one.measure_again}"
        ) from None


def _family(numbers: Iterable[Mapping[str, Numbers]]) -> dict[Place, float]:
    """The p-value of every comparison of the table."""
    return {
        (pair, method, metric): difference.p
        for pair, methods in enumerate(numbers)
        for method, one in methods.items()
        for metric, difference in one.differences.items()
    }


def _number(value: float) -> float | None:
    """None for what is undefined, which JSON cannot write."""
    return float(value) if math.isfinite(value) else None


# --- content -------------------------------------------------------------------------------------------------------


def _row(
    pair: int,
    method: str,
    numbers: Numbers,
    rejected: Mapping[Place, bool],
    level: float,
    beside: Published,
    results: Path,
) -> MeasuredRow:
    """One row of the pair with that index; p-values up to `level` would have been rejected, too."""
    return MeasuredRow(
        method=method,
        runs=[_trace(one, results) for one in numbers.runs],
        cells={m: _cell(m, numbers, rejected.get((pair, method, m), False), level) for m in numbers.values},
        published=beside.get((pair, method), {}),
    )


def _cell(metric: str, numbers: Numbers, significant: bool, level: float) -> Cell:
    values, found = numbers.values[metric], numbers.differences.get(metric)
    mean, std = mean_std(values)
    difference = None
    if found is not None:
        sign = -1 if metric in LOWER_IS_BETTER else 1
        difference = Comparison(
            values=[_number(value) for value in numbers.paired[metric]],
            mean=_number(found.mean),
            low=_number(found.low),
            high=_number(found.high),
            p=_number(found.p),
            significant=significant,
            better=sign * found.mean > 0,
            detectable=None if significant else _number(detectable(found, level)),
        )
    return Cell(values=[_number(v) for v in values], mean=_number(mean), std=_number(std), difference=difference)


def _trace(one: Status, results: Path) -> Trace:
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
