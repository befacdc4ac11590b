"""Step times that were taken on purpose, without training: `results/step_times.json`.

They are a machine's own, in no run's address, and count only where no record says how long a step takes.
"""

from __future__ import annotations

from pathlib import Path

from bcd.files import atomic_write
from bcd.runs.jsonfile import Json, dump, read_as

FILE = "step_times.json"


class Timing(Json):
    """Steps of one kind: the device, and the seconds of each that was timed."""

    device: str
    seconds: list[float]


class StepTimes(Json):
    """By kind (`bcd.planning.cost`): steps of students or teachers alone, and what the students of a job share."""

    steps: dict[str, Timing] = {}
    shared: dict[str, Timing] = {}

    def joined(self, other: StepTimes) -> StepTimes:
        """Both; of a kind that both have, what `other` says."""
        return StepTimes(steps=self.steps | other.steps, shared=self.shared | other.shared)


def read(results: Path) -> StepTimes:
    """What was timed; nothing where there is no such file. Raises UserError for a damaged one."""
    path = results / FILE
    return read_as(StepTimes, path, "delete it") if path.exists() else StepTimes()


def add(results: Path, found: StepTimes) -> None:
    """Write what was timed now beside what was timed before."""
    results.mkdir(exist_ok=True)
    atomic_write(results / FILE, dump(read(results).joined(found)))
