"""The content-addressed store: `results/store/<spec hash>/` holds one finished or unfinished run.

    spec.json          the full spec, for people and for `bcd plan`
    state.pt           train state while unfinished (see bcd.train.checkpoint)
    history.jsonl      one line per logging interval
    model.safetensors  the student's weights, nothing else
    record.json        written last: the entry is finished
    eval-<hash>.*      rows, predictions of the panel images and metrics of one evaluation
    failure.json       why the last attempt ended, if it did

No DAG engine declares or deletes any of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bcd.errors import UserError
from bcd.files import atomic_write, locked, sha256_file
from bcd.runs.record import Record, dump, read_as, read_json
from bcd.runs.spec import RESULTS, RunSpec


@contextmanager
def open_entry(spec: RunSpec, results: Path = RESULTS) -> Iterator[Path]:
    """Create and lock the folder of `spec` for one process.

    Raises UserError when another process holds it. The lock dies with its process, so a kill leaves none behind.
    """
    folder = spec.folder(results)
    busy = f"{folder} is in use by another process (pid PID); wait for it or stop it, then run the same command again"
    with locked(folder / "lock", busy):
        if not (folder / "spec.json").exists():
            atomic_write(folder / "spec.json", dump(spec.to_json()))
        yield folder


def record(folder: Path) -> Record | None:
    """The record of a finished run, or None."""
    path = folder / "record.json"
    return read_as(Record, path) if path.exists() else None


def checked_weights(folder: Path) -> Path:
    """The weights file of a finished run; raises UserError if it is missing or differs from the record."""
    finished, path = record(folder), folder / "model.safetensors"
    if finished is None:
        raise UserError(f"{folder} is not finished; run the same command again to finish it")
    if not path.exists() or sha256_file(path) != finished.weights.sha256:
        raise UserError(
            f"{path}: missing or changed since its record was written; delete the folder {folder} "
            "and run the same command again"
        )
    return path


def unfinished_step(folder: Path) -> int | None:
    """How far an unfinished run has come, from the note beside its train state."""
    path = folder / "progress.json"
    return read_json(path)["step"] if path.exists() else None
