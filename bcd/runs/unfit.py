"""Data that is here and cannot serve the task of a run, known from its manifest before anything trains."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bcd.config.schema.data import TRAIN
from bcd.data.acquire import manifest
from bcd.data.findings import unusable
from bcd.errors import UserError
from bcd.runs.run import Run
from bcd.runs.status import DATA


def unfit_data(runs: Iterable[Run], data: Path = DATA) -> list[str]:
    """What is to be said of data that some of the runs would stop at, one sentence each."""
    asked = dict.fromkeys((run.files, run.training.task, run.evaluation.split) for run in runs)
    found: dict[str, None] = {}
    for files, task, split in asked:
        try:
            check = manifest.load(data / files).check
        except UserError:  # which is not here yet, and is looked at when it comes
            continue
        for sentence in unusable(check, task, (TRAIN, split)):
            found[f"data/{files}: {sentence}; then run `bcd fetch {files}`"] = None
    return list(found)


def require_fit_data(runs: Iterable[Run], data: Path = DATA) -> None:
    """Raise UserError with the first of these sentences."""
    if found := unfit_data(runs, data):
        raise UserError(found[0])
