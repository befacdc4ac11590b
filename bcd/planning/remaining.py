"""How long a build still takes, from the step times of like runs and from how long its own jobs took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from bcd.planning.cost import Rates, job_seconds
from bcd.runs.run import Run
from bcd.runs.status import Status

Jobs = Mapping[str, "Job"]  # by the address of their group


@dataclass(frozen=True)
class Job:
    """A training job of a build.

    students: each training that is left, with its steps; cores: what it keeps busy
    limit: minutes that its recipe allows it, which say how jobs compare where nothing is measured
    """

    students: tuple[tuple[Run, int], ...]
    cores: int
    limit: int


def job(statuses: Iterable[Status], cores: int) -> Job:
    """The job of a group with these statuses."""
    listed = list(statuses)
    left = {one.run.training.hash: (one.run, one.left) for one in listed if one.left}
    return Job(tuple(left.values()), cores, listed[0].run.runtime.minutes)


def seconds_left(
    jobs: Jobs, took: Mapping[str, float], running: Mapping[str, float], cores: int | None, rates: Rates
) -> float | None:
    """Seconds until all `jobs` are done, None while nothing is known of any.

    took: address -> seconds on the wall of each finished job; running: address -> share of its steps that is done
    cores: what the build may keep busy at once, None for no limit

    Jobs are as much slower than their estimate as the finished ones were: evaluation, or a busy machine.
    """
    seconds = _estimates(jobs, rates)
    if not seconds:
        return 0.0 if not jobs else None
    pace = median(took[address] / seconds[address] for address in took) if took else 1.0
    rest = {a: pace * seconds[a] * (1 - running.get(a, 0.0)) for a in jobs if a not in took}
    busy = sum(left * min(jobs[address].cores, cores) for address, left in rest.items()) / cores if cores else 0.0
    return max([busy, *rest.values()])


def _estimates(jobs: Jobs, rates: Rates) -> dict[str, float]:
    """Seconds of each job; one whose step is unknown takes as much of its limit as the known ones do of theirs."""
    known = {
        address: job_seconds(each.students, rates)[0] or rates.start_seconds
        for address, each in jobs.items()
        if all(rates.step(run).seconds is not None for run, _ in each.students)
    }
    shares = [seconds / jobs[address].limit for address, seconds in known.items() if jobs[address].students]
    if not shares and len(known) < len(jobs):
        return {}
    return {a: known[a] if a in known else median(shares) * jobs[a].limit for a in jobs}
