"""What a suite consists of and what of it is done, from small files alone.

`bcd.planning.budget` says what the rest costs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bcd.data.acquire import manifest
from bcd.errors import UserError
from bcd.planning.cost import Rates, measured
from bcd.runs.run import Run
from bcd.runs.spec import RESULTS
from bcd.runs.status import DATA, TO_TRAIN, Status, Verdict, judge_all


@dataclass(frozen=True)
class Planned:
    """A run with what its own training still takes, without what a job pays once; None = unknown."""

    status: Status
    seconds: float | None
    bytes: int | None

    @property
    def run(self) -> Run:
        """The run."""
        return self.status.run


@dataclass(frozen=True)
class Totals:
    """Runs by verdict, what the rest needs, and of how many runs nothing is known."""

    verdicts: Mapping[Verdict, int]
    seconds: float
    bytes: int
    unknown: int


def survey(suite: str, runs: Mapping[str, Run], rates: Rates | None = None) -> list[Planned]:
    """Every run of a suite, teachers first; `rates` are those of the records by default."""
    rates = rates or measured(RESULTS)
    statuses = judge_all(suite, runs.values(), RESULTS, DATA)
    return [planned(statuses[key], rates) for key in runs]


def planned(status: Status, rates: Rates) -> Planned:
    """A run with its cost, by `rates`."""
    if status.verdict not in TO_TRAIN:
        return Planned(status, None, None)
    seconds = rates.step(status.run).seconds
    return Planned(status, None if seconds is None else seconds * status.left, rates.size(status.run))


def totals(runs: Iterable[Planned]) -> Totals:
    """What the runs add up to."""
    listed = list(runs)
    verdicts: dict[Verdict, int] = {}
    for one in listed:
        verdicts[one.status.verdict] = verdicts.get(one.status.verdict, 0) + 1
    rest = [one for one in listed if one.status.verdict in TO_TRAIN]
    return Totals(
        verdicts,
        seconds=sum(one.seconds or 0.0 for one in rest),
        bytes=sum(one.bytes or 0 for one in rest),
        unknown=sum(one.seconds is None for one in rest),
    )


def drop_stale(runs: Iterable[Planned]) -> list[str]:
    """Forget every code-stale run, so that the next `snakemake` trains it again; returns their keys."""
    dropped = []
    for one in runs:
        if one.status.stale:
            shutil.rmtree(one.status.place, ignore_errors=True)
            one.status.file.unlink()
            dropped.append(one.run.key)
    return dropped


def data_state(runs: Mapping[str, Run]) -> dict[str, str]:
    """Dataset folder -> what lies there."""
    return {files: _state(DATA / files) for files in sorted({run.files for run in runs.values()})}


def _state(folder: Path) -> str:
    try:
        loaded = manifest.load(folder)
    except UserError:
        return "missing"
    return ", ".join(word for word in (loaded.origin, loaded.note) if word)
