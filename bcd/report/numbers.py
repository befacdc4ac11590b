"""What the runs of a table say in numbers: metrics, paired differences, and which of these are significant.

`bcd.report.measure` makes the table's content of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bcd.config.schema.suites import Table
from bcd.errors import UserError
from bcd.metrics import summariser
from bcd.report.content import TEACHER
from bcd.report.stats import Difference, compare, enough_replicates, holm
from bcd.runs.expand import Row
from bcd.runs.status import Status
from bcd.runs.usable import read_named

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
    """The runs of one row, and by their repetition the names of their images, the per-image counts and the metrics."""

    runs: list[Status]
    names: Mapping[int, list[str]]
    counts: Mapping[int, Mapping[str, np.ndarray]]
    values: dict[int, dict[str, float]]


@dataclass(frozen=True)
class Paired:
    """A row beside another, over the seeds of both and so many images.

    paired: metric -> the differences
    differences: what these amount to in the main metrics
    """

    paired: dict[str, list[float]]
    differences: dict[str, Difference]
    images: int


def metrics_of(table: Table) -> list[str]:
    return list(dict.fromkeys([*table.metrics, *table.main_metrics]))


def read_row(row: Row, usable: Usable, table: Table, metrics: list[str]) -> Read:
    """What the runs of a row say each by itself."""
    summarise = summariser(table.task, metrics)
    runs = [usable[run.key] for run in row.runs if run.key in usable]
    read = {one.run.repetition: read_named(one) for one in runs}
    counts = {repetition: rows for repetition, (rows, _) in read.items()}
    values = {one.run.repetition: _values(one, counts[one.run.repetition], summarise, metrics) for one in runs}
    return Read(runs, {repetition: names for repetition, (_, names) in read.items()}, counts, values)


def numbers_of(block: Mapping[str, Read], as_pytorch: Mapping[str, Read], table: Table) -> dict[str, Numbers]:
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
        values = {m: [one[m] for one in own.values.values()] for m in metrics_of(table)}
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
        {m: [own.values[seed][m] - other.values[seed][m] for seed in shared] for m in metrics_of(table)},
        compare(*both, metrics=table.main_metrics, summarise=main, replicates=replicates_of(table)),
        len(own.names[shared[0]]),
    )


def replicates_of(table: Table) -> int:
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


def families_of(numbers: Sequence[Mapping[str, Numbers]], forms: int) -> dict[tuple[int, str], dict[Place, float]]:
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


def decide(family: Mapping[Place, float]) -> dict[Place, Decided]:
    """What Holm's procedure says of each comparison of a family."""
    rejected = holm(family, ALPHA)
    level = ALPHA / max(1, list(rejected.values()).count(False))
    return {place: Decided(significant, level) for place, significant in rejected.items()}


def largest_family(families: Iterable[Mapping[Place, Decided]], against: str) -> int:
    """Of the families that compare with that; those of a partial table may differ, and the largest counts."""
    return max((len(family) for family in families if next(iter(family))[1] == against), default=0)
