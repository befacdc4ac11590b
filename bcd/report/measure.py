"""From the finished runs of a table to everything that it says.

Inputs are the runs' small JSON files and their evaluation rows in the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

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
    FileCost,
    MeasuredRow,
    ModelFacts,
    PairBlock,
    PartialFacts,
    PublishedCell,
    TableContent,
    Trace,
)
from bcd.report.stats import Difference, compare, detectable, enough_replicates, holm, mean_std
from bcd.runs.expand import Row, blocks, table_rows
from bcd.runs.record import Report, RunResult, read_as
from bcd.runs.status import Status
from bcd.runs.usable import find_runs, read_rows, refusal

LOWER_IS_BETTER = frozenset({"frag"})
ALPHA = 0.05

Usable = Mapping[str, Status]  # by run key
Place = tuple[int, str, str, str]  # index of the block, what is compared with (BASELINE, PYTORCH), method, metric
BASELINE, PYTORCH = "baseline", "pytorch"


@dataclass(frozen=True)
class Numbers:
    """What the runs of one method say, before the table's correction.

    values: metric -> of each run
    against: what it is compared with, BASELINE or PYTORCH -> that comparison; empty where nothing is compared
    """

    runs: list[Status]
    values: dict[str, list[float]]
    against: dict[str, Paired]


@dataclass(frozen=True)
class Decided:
    """Whether a comparison is significant within its family.

    level: p-values up to it would have been, too, given those of the family that are
    """

    significant: bool
    level: float


@dataclass(frozen=True)
class Read:
    """The runs of one row, and by their repetition the per-image counts and the metrics."""

    runs: list[Status]
    counts: Mapping[int, Mapping[str, np.ndarray]]
    values: dict[int, dict[str, float]]


@dataclass(frozen=True)
class Paired:
    """A row beside another, over the seeds of both.

    paired: metric -> the differences
    differences: what these amount to in the main metrics
    """

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
    metrics = _metrics(table)
    read = [{row.method: _read(row, usable, table, metrics) for row in block} for block in blocks(rows)]
    forms = 1 + len(table.exports)  # of each pair, PyTorch's first
    numbers = [_numbers(one, read[i - i % forms] if i % forms else {}, table) for i, one in enumerate(read)]
    families = [_decided(family) for family in _families(numbers, forms).values()]
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
        comparisons=_size(families, BASELINE),
        comparisons_to_pytorch=_size(families, PYTORCH),
        sources=sources,
        pairs=[_block(block, usable, made) for block, made in zip(blocks(rows), measured, strict=True)],
        partial=PartialFacts(runs=len(wanted), missing=missing) if partial else None,
    )
    return with_words(content, suite.description, table.caption)


def _metrics(table: Table) -> list[str]:
    return list(dict.fromkeys([*table.metrics, *table.main_metrics]))


# --- numbers -------------------------------------------------------------------------------------------------------


def _read(row: Row, usable: Usable, table: Table, metrics: list[str]) -> Read:
    """What the runs of a row say each by itself."""
    summarise = summariser(table.task, metrics)
    runs = [usable[run.key] for run in row.runs if run.key in usable]
    counts = {one.run.repetition: read_rows(one) for one in runs}
    values = {one.run.repetition: _values(one, counts[one.run.repetition], summarise, metrics) for one in runs}
    return Read(runs, counts, values)


def _numbers(block: Mapping[str, Read], as_pytorch: Mapping[str, Read], table: Table) -> dict[str, Numbers]:
    """Method -> what its runs say beside others; the teacher is compared with nothing.

    as_pytorch: the same methods in PyTorch, where the block shows exports; else empty.
    """
    measured = {}
    for method, own in block.items():
        others: dict[str, Read] = {}
        if method not in (TEACHER, table.baseline):
            others[BASELINE] = block[table.baseline]
        if method != TEACHER and method in as_pytorch:
            others[PYTORCH] = as_pytorch[method]
        paired = {against: _paired(own, other, table) for against, other in others.items()}
        values = {m: [one[m] for one in own.values.values()] for m in _metrics(table)}
        measured[method] = Numbers(own.runs, values, {against: one for against, one in paired.items() if one})
    return measured


def _paired(own: Read, other: Read, table: Table) -> Paired | None:
    """One row beside another; None without a seed that both have."""
    shared = [seed for seed in own.values if seed in other.values]
    if not shared:
        return None
    both = [[read.counts[seed] for seed in shared] for read in (own, other)]
    main = summariser(table.task, table.main_metrics)
    return Paired(
        {m: [own.values[seed][m] - other.values[seed][m] for seed in shared] for m in _metrics(table)},
        compare(*both, metrics=table.main_metrics, summarise=main, replicates=_replicates(table)),
    )


def _replicates(table: Table) -> int:
    """Enough for the table's largest family to have marks."""
    rows = len(table.method_names) - (0 if table.exports else 1)  # the baseline, too, is compared with PyTorch
    return enough_replicates(rows * len(table.main_metrics) * len(table.pairs), ALPHA)


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


def _families(numbers: Sequence[Mapping[str, Numbers]], forms: int) -> dict[tuple[int, str], dict[Place, float]]:
    """The p-values of every comparison, by form and by what is compared with.

    Each form asks for itself whether methods gain, and what it costs. Together they would be one family in which a gain
    that four forms show counts four times, and a file that is equal to PyTorch as often.
    """
    families: dict[tuple[int, str], dict[Place, float]] = {}
    for block, methods in enumerate(numbers):
        for method, one in methods.items():
            for against, beside in one.against.items():
                family = families.setdefault((block % forms, against), {})
                family |= {(block, against, method, m): found.p for m, found in beside.differences.items()}
    return families


def _decided(family: Mapping[Place, float]) -> dict[Place, Decided]:
    """What Holm's procedure says of each comparison of a family."""
    rejected = holm(family, ALPHA)
    level = ALPHA / max(1, list(rejected.values()).count(False))
    return {place: Decided(significant, level) for place, significant in rejected.items()}


def _size(families: Iterable[Mapping[Place, Decided]], against: str) -> int:
    """Of the families that compare with that; those of a partial table may differ, and the largest counts."""
    return max((len(family) for family in families if next(iter(family))[1] == against), default=0)


def _number(value: float) -> float | None:
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
            values=[_number(v) for v in values],
            mean=_number(mean),
            std=_number(std),
            difference=compared(BASELINE, metric),
            to_pytorch=compared(PYTORCH, metric),
        )
    return MeasuredRow(
        method=method,
        runs=[_trace(one, results) for one in numbers.runs],
        cells=cells,
        published=beside,
        file=_file_cost(numbers.runs),
    )


def _comparison(metric: str, paired: Paired, decided: Decided) -> Comparison:
    found, sign = paired.differences[metric], -1 if metric in LOWER_IS_BETTER else 1
    return Comparison(
        values=[_number(value) for value in paired.paired[metric]],
        mean=_number(found.mean),
        low=_number(found.low),
        high=_number(found.high),
        p=_number(found.p),
        significant=decided.significant,
        better=sign * found.mean > 0,
        detectable=None if decided.significant else _number(detectable(found, decided.level)),
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
