"""The runs that tables and panels may be made of, and what is said of the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from bcd.errors import UserError, counted
from bcd.files import sha256_file
from bcd.runs.run import Run
from bcd.runs.spec import RESULTS
from bcd.runs.status import DATA, NO_RESULT, Status, judge_all

NAMED = 10  # keys that a message lists before it only counts the rest


def find_runs(
    suite: str, runs: Iterable[Run], results: Path = RESULTS, data: Path = DATA
) -> tuple[dict[str, Status], dict[str, list[str]]]:
    """The given runs and their teachers: the usable ones by key, and of the others reason -> keys."""
    statuses = judge_all(suite, runs, results, data)
    unusable: dict[str, list[str]] = {}
    for key, status in statuses.items():
        if not status.usable:
            unusable.setdefault(status.why, []).append(key)
    return {key: status for key, status in statuses.items() if status.usable}, unusable


def refusal(suite: str, usable: Collection[str], unusable: Mapping[str, list[str]], otherwise: str = "") -> str:
    """What is wrong with the runs of a suite and how to mend it, from what `find_runs` gives.

    otherwise: what else may be done where some are usable.
    """
    make = f"run `snakemake --config suite={suite}` to make them"
    if not usable and set(unusable) == {NO_RESULT}:
        number = counted(len(unusable[NO_RESULT]), "run")
        return f"suite '{suite}': nothing has been run yet of the {number} that this needs; {make}"
    reasons = "; ".join(f"{why}: {_listed(keys)}" for why, keys in sorted(unusable.items()))
    return f"suite '{suite}': {reasons}; {make}{otherwise if usable else ''}"


def read_runs(suite: str, runs: Iterable[Run], results: Path = RESULTS, data: Path = DATA) -> dict[str, Status]:
    """The given runs and their teachers by key; raises UserError naming every run that is not usable."""
    found, unusable = find_runs(suite, runs, results, data)
    if unusable:
        raise UserError(refusal(suite, found, unusable))
    return found


def read_rows(status: Status) -> dict[str, np.ndarray]:
    """Per-image counts `{name: (I, C)}` of the run; raises UserError unless they are the bytes that were recorded."""
    return read_named(status)[0]


def read_named(status: Status) -> tuple[dict[str, np.ndarray], list[str]]:
    """The counts of `read_rows`, and the names of their images."""
    from bcd.metrics import load_rows

    path = status.rows_file
    if not path.exists() or sha256_file(path) != status.finished.evaluation.rows_sha256:
        raise UserError(f"{path} is missing or changed since {status.run.key} was evaluated; {status.measure_again}")
    return load_rows(path)


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more
