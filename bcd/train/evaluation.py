"""Evaluation of a finished run, kept beside its weights."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bcd import distributed
from bcd.files import atomic_write, sha256_file
from bcd.metrics import save_rows
from bcd.runs.record import Report, dump, read_as
from bcd.runs.spec import Evaluation, RunSpec, digest
from bcd.tasks.task import Task
from bcd.train.trained import load_model

Say = Callable[[str], None]


def evaluate(
    spec: RunSpec, folder: Path, task: Task, evaluation: Evaluation, data_sha256: str, code: str, say: Say
) -> Report:
    """Evaluate a finished run, or return the evaluation of the same data that the store already holds.

    data_sha256: what the evaluated split consists of. code: hash of the code that evaluates.
    """
    shown = evaluation.model_dump()
    name = f"eval-{digest(shown)}"
    report = folder / f"{name}.json"
    if report.exists() and (stored := read_as(Report, report)).data_sha256 == data_sha256:
        return stored
    say(f"evaluating {folder} on '{evaluation.split}'")
    begin = time.perf_counter()
    model = load_model(task, spec.training.model, folder)
    result = task.evaluate(model, evaluation, distributed.own_device())
    save_rows(folder / f"{name}.npz", result.rows, result.names)
    atomic_write(folder / f"{name}-predictions.npz", _npz(result.predictions))
    found = Report(
        hash=digest(shown),
        split=evaluation.split,
        data_sha256=data_sha256,
        images=len(result.names),
        rows_sha256=sha256_file(folder / f"{name}.npz"),
        metrics=result.metrics,
        code=code,
        seconds=round(time.perf_counter() - begin, 3),
    )
    atomic_write(report, dump(shown | found.model_dump()))
    return found


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # an array may be called anything
    return buffer.getvalue()
