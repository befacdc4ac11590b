"""What a suite still takes: runs, jobs, hours, money and disk of each table, and what training in groups saves."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from bcd.config.schema.data import Dataset
from bcd.config.schema.suites import Params
from bcd.errors import counted
from bcd.planning.cost import TIMED, Rate, Rates, job_seconds
from bcd.planning.survey import Planned, totals
from bcd.runs.expand import Row, groups
from bcd.runs.status import TO_TRAIN

HOUR = 3600


@dataclass(frozen=True)
class BudgetLine:
    """Of one table, or of all.

    runs: of the table, teachers and exports included; left: the trainings that these still need, in so many jobs
    seconds: of a GPU (or of a job that has none) for these; apart: the same with a job for each run
    low, high: the seconds by the least and the most that records say of each step
    unknown: how many of the left are in neither, because nobody knows how long their steps take
    """

    name: str
    runs: int
    left: int
    jobs: int
    seconds: float
    apart: float
    low: float
    high: float
    unknown: int


def budget(tables: dict[str, list[Row]], planned: list[Planned], rates: Rates) -> list[BudgetLine]:
    """A line for each table and a last one, `all tables`; a run that several tables share counts in each of them."""
    jobs = groups({one.run.key: one.run for one in planned})
    job_of = {run.key: address for address, job in jobs.items() for run in job}
    by_key = {one.run.key: one for one in planned}
    wanted = {name: dict.fromkeys(run.key for row in rows for run in row.runs) for name, rows in tables.items()}
    wanted["all tables"] = dict.fromkeys(by_key)
    lines = []
    for name, keys in wanted.items():
        parts: dict[str, list[Planned]] = {}
        for key in keys:
            parts.setdefault(job_of[key], []).append(by_key[key])
        lines.append(_line(name, list(parts.values()), rates))
    return lines


def report(
    params: Params, tables: dict[str, list[Row]], planned: list[Planned], rates: Rates, price: float | None
) -> list[str]:
    """The budget as text, with where its numbers come from; `price` is that of a GPU-hour."""
    lines = budget(tables, planned, rates)
    unit = "GPU-h" if any(one.run.runtime.gpus for one in planned) else "hours"
    heads = ["table", "runs", "to train", "jobs", unit, *(["cost"] if price else []), "groups save"]
    cells = [heads, *(_cells(line, price) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    left = trainings(planned)
    return [*text, "", *(_origins(left, rates) if left else []), _disk(params, planned)]


def _line(name: str, jobs: list[list[Planned]], rates: Rates) -> BudgetLine:
    seconds, apart = _seconds(jobs, rates)
    low, high = (_seconds(jobs, rates.bound(which))[0] for which in ("low", "high"))
    busy = sum(any(one.status.left for one in job) for job in jobs)
    runs = [one for job in jobs for one in job]
    left = trainings(runs)
    unknown = sum(one.seconds is None for one in left)
    return BudgetLine(name, len(runs), len(left), busy, seconds, apart, low, high, unknown)


def trainings(runs: Iterable[Planned]) -> list[Planned]:
    """One run for each training that is left: an export is the training of its PyTorch model."""
    return list({one.run.training.hash: one for one in runs if one.status.left}.values())


def _seconds(jobs: list[list[Planned]], rates: Rates) -> tuple[float, float]:
    """Of all jobs, and of a job for each run."""
    seconds, apart = 0.0, 0.0
    for job in jobs:
        # One training under two names is done once.
        left = {one.run.training.hash: (one.run, one.status.left) for one in job if one.status.left}
        if left:
            gpus = max(1, job[0].run.runtime.gpus)
            together, many = job_seconds(left.values(), rates)
            seconds, apart = seconds + gpus * together, apart + gpus * many
    return seconds, apart


def _cells(line: BudgetLine, price: float | None) -> list[str]:
    some = line.left == 0 or line.unknown < line.left
    mark = f" + {line.unknown} unknown" if line.unknown else ""
    hours = f"{_number(line.seconds / HOUR)}{_between(line)}{mark}" if some else "unknown"
    money = [_number(price * line.seconds / HOUR) if some else "unknown"] if price else []
    share = f" ({1 - line.seconds / line.apart:.0%})" if line.apart else ""
    saved = f"{_number((line.apart - line.seconds) / HOUR)}{share}" if some else "unknown"
    return [line.name, *map(str, (line.runs, line.left, line.jobs)), hours, *money, saved]


def _between(line: BudgetLine) -> str:
    """The least and the most hours, where a reader would see a difference."""
    low, high = _number(line.low / HOUR), _number(line.high / HOUR)
    return "" if low == high else f" ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _origins(left: list[Planned], rates: Rates) -> list[str]:
    """Which of the times are measured, timed or stated, and which unknown."""
    steps = [rates.step(one.run) for one in left]
    shares = {one.run.group: rates.share(one.run) for one in left if one.run.training.terms}
    unknown = sorted({one.run.model for one in left if one.seconds is None})
    ways = "--time takes a few steps of each, --step-seconds MODEL=SECONDS states them"
    hint = f" ({ways}; models: {', '.join(unknown)})" if unknown else ""
    every = (*steps, *shares.values())
    spread = (
        ["In brackets: by the least and by the most that records or timed steps say; on a CPU the processor's time "
         "counts."]
        if any(rate.low != rate.high for rate in every)
        else []
    )  # fmt: skip
    timed = (
        ["Timed: training steps on this machine from random weights and invented images; the median after a warm-up. "
         "Reading images is not counted."]
        if any(rate.origin.startswith(TIMED) for rate in every)
        else []
    )  # fmt: skip
    return [
        f"Hours: a job takes {rates.start_seconds:g} s (assumed) + steps x (shared + a step of each of its students); "
        "evaluation is not counted.",
        f"  a step: {_tally(steps, 'runs')}{hint}",
        f"  shared, that is the teacher's forward pass and the data: {_tally(shares.values(), 'groups')}; estimated as "
        f"{rates.forward_share:.2f} of the teacher's training step; where nothing is known it counts as nothing",
        *timed,
        *spread,
    ]


def _tally(rates: Collection[Rate], what: str) -> str:
    """`3 runs measured (12 records, NVIDIA H200), 5 runs timed (10 steps, NVIDIA H200), 2 runs stated`."""
    parts = []
    for origin in dict.fromkeys(rate.origin for rate in rates):
        sampled = {rate for rate in rates if rate.origin == origin and rate.samples}
        devices = ", ".join(sorted({device for rate in sampled for device in rate.device.split(", ")}))
        sample = "step" if origin.startswith(TIMED) else "record"
        of = f" ({counted(sum(rate.samples for rate in sampled), sample)}, {devices})" if sampled else ""
        parts.append(f"{sum(rate.origin == origin for rate in rates)} {what} {origin}{of}")
    return ", ".join(parts) or f"no {what}"


def _disk(params: Params, planned: list[Planned]) -> str:
    left = [one for one in planned if one.status.verdict in TO_TRAIN]
    unknown = sum(one.bytes is None for one in left)
    known = f"{_size(totals(planned).bytes)} for {counted(len(left) - unknown, 'run')} (weights, history, evaluation)"
    parts = [known] * (unknown < len(left)) + [f"{counted(unknown, 'run')} of unknown size"] * bool(unknown)
    files = sorted({one.run.files for one in planned})
    archives = ", ".join(f"{name} {_archives(params.datasets[name])}" for name in files)
    return f"Disk: {', '.join(parts) or 'nothing more'}; archives: {archives}"


def _archives(dataset: Dataset) -> str:
    if dataset.generator:
        return "generated"
    if dataset.folder:
        return "copied from a folder"
    known = [archive.bytes for archive in dataset.archives if archive.bytes]
    unknown = len(dataset.archives) - len(known)
    return " and ".join([_size(sum(known))] * bool(known) + [f"{unknown} of unknown size"] * bool(unknown))


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
