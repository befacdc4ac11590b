"""Evaluation of a finished run, kept beside its weights."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from bcd import distributed
from bcd.errors import UserError
from bcd.files import atomic_write, sha256_file
from bcd.metrics import save_rows
from bcd.runs import store
from bcd.runs.jsonfile import dump, read_as
from bcd.runs.record import Report
from bcd.runs.spec import Evaluation, RunSpec, digest
from bcd.tasks.task import Task
from bcd.train.trained import load_model

Say = Callable[[str], None]
ROWS, PREDICTIONS = ".npz", "-predictions.npz"


def evaluate(
    spec: RunSpec, folder: Path, task: Task, root: Path, evaluation: Evaluation, data_sha256: str, code: str, say: Say
) -> Report:
    """Evaluate the weights of a finished run, or return the evaluation of these that the store already holds.

    An evaluation of other weights or data, or one that is damaged, is made again. The folder is locked meanwhile, and
    not for an evaluation that is there. Raises UserError if the weights are damaged or give what is not finite.

    root: the folder of the run's dataset. data_sha256: what the evaluated split consists of. code: hash of the code
    that evaluates.
    """
    if kept := stored(folder, evaluation, data_sha256):
        return kept
    with store.open_entry(spec, folder.parents[1]):
        again = stored(folder, evaluation, data_sha256, say)
        return again or _measure(spec, folder, task, root, evaluation, data_sha256, code, say)


def stored(folder: Path, evaluation: Evaluation, data_sha256: str, say: Say | None = None) -> Report | None:
    """The evaluation of a finished run on that data, if the store holds it whole; says what else it holds instead."""
    finished, path = store.record(folder), folder / f"{_stem(evaluation)}.json"
    if finished is None or not path.exists():
        return None
    try:
        report = read_as(Report, path)
        why = _why_again(report, path.with_suffix(""), finished.weights.sha256, data_sha256)
    except UserError as error:
        why = str(error)
    if why and say:
        say(f"{path}: {why}: evaluating again")
    return None if why else report


def _why_again(report: Report, stem: Path, weights_sha256: str, data_sha256: str) -> str:
    """Why an evaluation does not stand for these weights on that data, or ""."""
    if report.data_sha256 != data_sha256:
        return f"it is of another '{report.split}'" if report.data_sha256 else "it does not say of which images it is"
    if report.weights_sha256 != weights_sha256:
        return "it is of other weights" if report.weights_sha256 else "it does not say of which weights it is"
    if report.seal != report.sealed().seal:
        return "what it says was changed since it was written" if report.seal else "it has no seal"
    files = {stem.name + ROWS: report.rows_sha256, stem.name + PREDICTIONS: report.predictions_sha256}
    files |= report.exported.files if report.exported else {}
    for name, recorded in files.items():
        file = stem.with_name(name)
        if not file.exists() or sha256_file(file) != recorded:
            return f"{file.name} is missing or damaged"
    return ""


def _stem(evaluation: Evaluation) -> str:
    return f"eval-{digest(evaluation.model_dump())}"


def _measure(
    spec: RunSpec, folder: Path, task: Task, root: Path, evaluation: Evaluation, data_sha256: str, code: str, say: Say
) -> Report:
    """Evaluate, and write the report after the files that it has the hashes of."""
    form = evaluation.export
    say(f"evaluating {folder} on '{evaluation.split}'{f' as {form.format}, {form.precision}' if form else ''}")
    begin = time.perf_counter()
    finished = store.record(folder)
    if finished is None:
        raise UserError(f"{folder} is not finished; run the same command again to finish it")
    weights = finished.weights.sha256
    if form is None:
        file, model = None, load_model(task, spec.training.model, folder, weights)
        result = task.evaluate(model, evaluation, distributed.own_device())
    else:
        from bcd.export.evaluated import exported

        file = exported(folder, spec, root, evaluation, form, say)
        result = task.evaluate(file.model, evaluation, torch.device("cpu"))
    stem = _stem(evaluation)
    rows, predictions = folder / f"{stem}{ROWS}", folder / f"{stem}{PREDICTIONS}"
    save_rows(rows, result.rows, result.names)
    atomic_write(predictions, _npz(result.predictions))
    shown = evaluation.model_dump()
    found = Report(
        hash=digest(shown),
        split=evaluation.split,
        data_sha256=data_sha256,
        images=len(result.names),
        weights_sha256=weights,
        rows_sha256=sha256_file(rows),
        predictions_sha256=sha256_file(predictions),
        metrics=result.metrics,
        code=code,
        seconds=round(time.perf_counter() - begin, 3),
        exported=file.facts if file else None,
        latency=file.latency if file else None,
    ).sealed()
    atomic_write(folder / f"{stem}.json", dump(shown | found.model_dump()))
    return found


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # an array may be called anything
    return buffer.getvalue()
