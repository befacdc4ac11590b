"""Two rows of a table side by side: `bcd compare`. Its statistics are those of `bcd.report.stats`, as in the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial as with_arguments
from pathlib import Path
from typing import Any

import numpy as np

from bcd.config.schema.base import METRICS
from bcd.config.schema.suites import Params, Suite
from bcd.errors import UserError, counted, pick
from bcd.metrics import summariser
from bcd.metrics.average_precision import SUFFIX
from bcd.metrics.parts import by_class, by_image, class_count, class_metric
from bcd.report.compared import Compared, ComparedRow, Moved, RowComparison
from bcd.report.content import TEACHER
from bcd.report.measure import number, trace
from bcd.report.numbers import Read, metrics_of, read_row, replicates_of
from bcd.report.sides import Side, find_sides
from bcd.report.stats import Difference, compare, mean_std
from bcd.runs.usable import find_runs, refusal

SIZES = {"small": "ap_s", "medium": "ap_m", "large": "ap_l"}  # COCO's: below 32 x 32 px, up to 96 x 96 px, above
WITHOUT_CLASSES = frozenset({"aacc"})  # it sums over classes before it divides
Rows = Sequence[Mapping[str, np.ndarray]]  # of one row's runs


def compare_rows(
    params: Params,
    suite: Suite,
    a: str,
    b: str,
    *,
    table: str | None = None,
    metrics: Sequence[str] = (),
    images: int = 5,
    partial: bool = False,
    results: Path = Path("results"),
    data: Path = Path("data"),
) -> RowComparison:
    """The row `b` beside the row `a`: what of it is better, and where.

    Args:
        a, b, table: as `find_sides` reads them.
        metrics: those that are compared, all of the table by default. The first one orders the images.
        images: how many of those that gained and that lost most are named.
        partial: whether the seeds that both rows have will do where runs are missing.
        results, data: the folders of the project.

    Raises:
        UserError: what `find_sides` raises; an unknown metric; runs that are missing; no seed or not the same images
            in both rows.
    """
    one, other = find_sides(params, suite, a, b, table)
    task = one.table.task
    known = {metric: metric for metric in METRICS[task]}
    wanted = [pick(known, metric, "--metric") for metric in dict.fromkeys(metrics)] or metrics_of(one.table)
    sizes = [] if task == "semantic" else _size_metrics(wanted)
    pair = _read(suite.name, one, other, [*wanted, *sizes], results, data, partial=partial)

    measured = with_arguments(_compared, pair, replicates_of(one.table))
    every = list(dict.fromkeys([*wanted, *sizes]))
    overall = dict(zip(every, measured(every, summariser(task, every)), strict=True))
    up, down = _moved(pair, summariser(task, wanted[:1]), wanted[0], images)
    first = pair.a.runs[0]
    return RowComparison(
        suite=suite.name,
        table=one.table.name,
        a=_row(one, pair.a, results),
        b=_row(other, pair.b, results),
        dataset=one.row.pair.dataset if one.row.method != TEACHER else other.row.pair.dataset,
        split=first.finished.evaluation.split,
        images=len(pair.names),
        repetitions=[f"s{seed}" for seed in pair.seeds],
        metrics=[overall[metric] for metric in wanted],
        sizes=[overall[metric] for metric in sizes],
        classes=_classes(one, pair, wanted if metrics else one.table.main_metrics, measured),
        moved_by=wanted[0],
        up=up,
        down=down,
        caveats=_caveats(one, other, pair),
    )


# --- what is read --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """Both rows, read; the rows of counts are in the order of `seeds`, the images in that of `names`."""

    a: Read
    b: Read
    seeds: list[int]
    names: list[str]

    @property
    def rows(self) -> tuple[Rows, Rows]:
        first, second = ([read.counts[seed] for seed in self.seeds] for read in (self.a, self.b))
        return first, second


def _read(suite: str, one: Side, other: Side, metrics: list[str], results: Path, data: Path, *, partial: bool) -> _Pair:
    """Raises UserError for runs that are missing, and for rows that share no seed or no images."""
    wanted = [*one.row.runs, *other.row.runs]
    usable, missing = find_runs(suite, wanted, results, data)
    if missing and not partial:
        both = all(any(run.key in usable for run in side.row.runs) for side in (one, other))
        few = ", or compare the seeds that are there with --partial" if both else ""
        raise UserError(refusal(suite, usable, missing, few))
    read = [read_row(side.row, usable, one.table, metrics) for side in (one, other)]
    for side, found in zip((one, other), read, strict=True):
        if not found.runs:
            raise UserError(f"no run of {side.name} is there; run `snakemake --config suite={suite}` to make them")
    # A teacher is one run, which stands beside each seed of a student.
    if one.row.method == TEACHER != other.row.method:
        read[0] = _repeated(read[0], list(read[1].counts))
    elif other.row.method == TEACHER != one.row.method:
        read[1] = _repeated(read[1], list(read[0].counts))
    seeds = [seed for seed in read[0].counts if seed in read[1].counts]
    if not seeds:
        has = [", ".join(f"s{seed}" for seed in found.counts) for found in read]
        raise UserError(
            f"no seed in common: {one.name} has {has[0]} and {other.name} has {has[1]}; name runs of one seed"
        )
    listed = [found.names[seed] for found in read for seed in seeds]
    if any(names != listed[0] for names in listed):
        raise UserError(f"{one.name} and {other.name} are evaluated on different images; compare rows of one dataset")
    return _Pair(read[0], read[1], seeds, listed[0])


def _repeated(read: Read, seeds: list[int]) -> Read:
    """The one run of a teacher under the number of every seed."""
    (own,) = read.counts
    return replace(
        read,
        names=dict.fromkeys(seeds, read.names[own]),
        counts=dict.fromkeys(seeds, read.counts[own]),
        values=dict.fromkeys(seeds, read.values[own]),
    )


# --- what is compared ----------------------------------------------------------------------------------------------


def _size_metrics(metrics: Sequence[str]) -> list[str]:
    """COCO's metrics by size, for each kind of overlap that the metrics are of."""
    ends = [end for end in SUFFIX.values() if end and any(metric.endswith(end) for metric in metrics)]
    if any(not metric.endswith(tuple(end for end in SUFFIX.values() if end)) for metric in metrics):
        ends.insert(0, "")
    return [f"{size}{end}" for end in ends for size in SIZES.values()]


def _compared(
    pair: _Pair, replicates: int, metrics: Sequence[str], summarise: Callable[..., Mapping[str, Any]]
) -> list[Compared]:
    """Each of the metrics that `summarise` gives, in both rows."""
    first, second = pair.rows
    found = compare(second, first, metrics=metrics, replicates=replicates, summarise=summarise)
    each = [[summarise(rows) for rows in side] for side in (first, second)]
    made = [_one(metric, found[metric], *([rows[metric] for rows in side] for side in each)) for metric in metrics]
    return [_of_one_run(one, pair) for one in made]


def _of_one_run(one: Compared, pair: _Pair) -> Compared:
    """Without a deviation in the row of a teacher, whose one run stands there for every seed."""
    return one.model_copy(
        update={f"{name}_std": None for name, read in (("a", pair.a), ("b", pair.b)) if len(read.runs) == 1}
    )


def _one(metric: str, found: Difference, a: Sequence[float], b: Sequence[float]) -> Compared:
    (a_mean, a_std), (b_mean, b_std) = mean_std(a), mean_std(b)
    return Compared(
        metric=metric, a=number(a_mean), a_std=number(a_std), b=number(b_mean), b_std=number(b_std),
        values=[number(own - other) for other, own in zip(a, b, strict=True)],
        mean=number(found.mean), low=number(found.low), high=number(found.high), p=number(found.p),
    )  # fmt: skip


def _classes(
    side: Side, pair: _Pair, metrics: Sequence[str], measured: Callable[..., list[Compared]]
) -> list[Compared]:
    """The metrics class by class; those that have classes."""
    metrics = [metric for metric in metrics if metric not in WITHOUT_CLASSES]
    if not metrics:
        return []
    count, names = class_count(pair.rows[0][0]), side.row.runs[0].training.data.classes
    places = {class_metric(metric, i): (metric, names[i]) for metric in metrics for i in range(count)}
    summarise = by_class(summariser(side.table.task, metrics), metrics, count)
    return [
        one.model_copy(update={"metric": metric, "part": name})
        for one, (metric, name) in zip(measured(list(places), summarise), places.values(), strict=True)
    ]


def _moved(
    pair: _Pair, summarise: Callable[..., Mapping[str, Any]], metric: str, images: int
) -> tuple[list[Moved], list[Moved]]:
    """The images that rose most and that fell most; images of which the metric is undefined are in neither."""
    first, second = (np.stack([by_image(summarise, metric, rows) for rows in side]) for side in pair.rows)
    differences = second - first
    mean = differences.mean(0)

    def moved(index: int) -> Moved:
        return Moved(
            image=pair.names[index],
            a=float(first[:, index].mean()),
            b=float(second[:, index].mean()),
            difference=float(mean[index]),
            seeds_up=int((differences[:, index] > 0).sum()),
            seeds_down=int((differences[:, index] < 0).sum()),
        )

    order = np.argsort(-mean, kind="stable")  # what is undefined comes last
    up = [moved(i) for i in order[:images].tolist() if mean[i] > 0]
    down = [moved(i) for i in np.argsort(mean, kind="stable")[:images].tolist() if mean[i] < 0]
    return up, down


# --- what is said of it --------------------------------------------------------------------------------------------


def _row(side: Side, read: Read, results: Path) -> ComparedRow:
    return ComparedRow(name=side.name, address=side.address, runs=[trace(one, results) for one in read.runs])


def _caveats(one: Side, other: Side, pair: _Pair) -> list[str]:
    seeds, table = len(pair.seeds), one.table
    over = "test images only: other seeds may differ by more" if seeds == 1 else "seeds and test images"
    said = [
        f"Intervals are 95 % ones over {over} (the wider of a paired bootstrap and a t interval).",
        "No p-value or interval is corrected: no family of comparisons was declared, and this is one of many that may "
        f"be asked after the fact. {_in_the_table(one, other)}",
    ]
    if TEACHER in (one.row.method, other.row.method):
        said.append("The teacher is one run, which stands beside each seed; other teachers are not in the interval.")
    elif one.row.pair != other.row.pair:
        said.append("The rows are of different pairs: a repetition of one shares no seed with that of the other.")
    for side, read in ((one, pair.a), (other, pair.b)):
        if lost := [run for run in side.row.runs if run.key not in {status.run.key for status in read.runs}]:
            said.append(f"PARTIAL: {side.name} lacks {', '.join(f's{run.repetition}' for run in lost)}.")
        if stale := [f"s{status.run.repetition}" for status in read.runs if status.stale]:
            said.append(f"Code-stale: the code has changed since {side.name} ({', '.join(stale)}) was made.")
    if table.task == "semantic":
        said.append("There is no breakdown by size: the rows of segmentation keep no sizes of single regions.")
    return said


def _in_the_table(one: Side, other: Side) -> str:
    """Whether the table has this difference, too, and over how many comparisons it corrects it."""
    table, rows = one.table, (one.row, other.row)
    compared = len(table.method_names)
    if one.row.pair != other.row.pair or TEACHER in (row.method for row in rows):
        compared = 0
    elif one.row.export == other.row.export:
        compared = compared - 1 if table.baseline in (row.method for row in rows) else 0
    elif one.row.method != other.row.method or all(row.export for row in rows):
        compared = 0
    if not compared:
        return f"It is none of the differences that table {table.name} declares and corrects."
    family = counted(compared * len(table.main_metrics) * len(table.pairs), "comparison")
    return f"For marks after Holm's correction see table {table.name}, which has it among {family}."
