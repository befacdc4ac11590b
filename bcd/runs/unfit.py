"""Data and weights that are here and cannot serve a run, told before anything trains."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bcd.config.schema.data import TRAIN
from bcd.config.schema.models import DetectionModel
from bcd.data.acquire import manifest
from bcd.data.findings import unusable
from bcd.errors import UserError
from bcd.runs.run import Run
from bcd.runs.status import DATA

if TYPE_CHECKING:
    from bcd.models.base import DenseModel


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


def unfit_weights(runs: Iterable[Run]) -> list[str]:
    """What is to be said of local weights files that do not fit the models that start from them, one sentence each.

    Builds each such model once, which takes seconds and the memory of the largest.
    """
    asked = {
        (run.model, tuple(run.training.data.classes), bool(run.training.recipe.steps)): run
        for run in runs
        if Path(run.training.model.pretrained).is_file()
    }
    return list(dict.fromkeys(sentence for run in asked.values() if (sentence := _unfit(run))))


def _unfit(run: Run) -> str:
    from bcd.models import build
    from bcd.models.detection import build_detector
    from bcd.models.weights import require_whole

    model, classes = run.training.model, run.training.data.classes
    try:
        built: DenseModel
        if isinstance(model, DetectionModel):
            built = build_detector(model, len(classes), classes)
        else:
            built = build(model, len(classes), classes)
        if not run.training.recipe.steps:
            require_whole(built.weights, model.pretrained)
    except UserError as error:
        return f"the model '{run.model}' of params/models.yaml: {error}"
    return ""
