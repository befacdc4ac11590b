"""The content-addressed store: `results/store/<spec hash>/` holds one finished or unfinished run.

    spec.json          the full spec, for people and for `bcd plan`
    state.pt           train state while unfinished (see bcd.runs.progress)
    history.jsonl      one line per logging interval
    validation.jsonl   one line per evaluation in between, where the recipe asks for them
    model.safetensors  the student's weights, nothing else
    record.json        written last: the entry is finished
    eval-<hash>.*      rows, predictions of the panel images and metrics of one evaluation
    failure.json       why the last attempt ended, if it did

No DAG engine declares or deletes any of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bcd.errors import UserError
from bcd.files import atomic_write, locked, sha256_file, sweep
from bcd.runs.jsonfile import dump, read_as
from bcd.runs.progress import STATE
from bcd.runs.record import Failure, Record
from bcd.runs.spec import RESULTS, RunSpec

FAILURE = "failure.json"


@contextmanager
def open_entry(spec: RunSpec, results: Path = RESULTS) -> Iterator[Path]:
    """Create and lock the folder of `spec` for one process.

    Raises UserError when another process holds it. The lock dies with its process, so a kill leaves none behind.
    """
    folder = spec.folder(results)
    busy = f"{folder} is in use by another process (pid PID); wait for it or stop it, then run the same command again"
    with locked(folder / "lock", busy):
        _tidy(folder, dump(spec.to_json()))
        yield folder


def _tidy(folder: Path, spec: str) -> None:
    """Make a locked folder what it is where no process was ever killed, and its spec that of its name."""
    sweep(folder)
    path = folder / "spec.json"
    if not path.exists() or path.read_bytes() != spec.encode():
        atomic_write(path, spec)
    if record(folder):
        drop_attempt(folder)


def drop_attempt(folder: Path) -> None:
    """Remove the state and the failure of a training that is finished."""
    for name in (STATE, "progress.json", FAILURE):  # older versions wrote the second
        (folder / name).unlink(missing_ok=True)


def record(folder: Path) -> Record | None:
    """The record of a finished run, or None.

    Raises UserError if it is damaged or was written for another folder.
    """
    path = folder / "record.json"
    if not path.exists():
        return None
    found = read_as(Record, path, "delete it and run `snakemake` to train this run again")
    if found.spec.hash != folder.name:
        raise UserError(
            f"{path} is the record of another run, {found.spec.hash}; delete the folder {folder} and run `snakemake` "
            "to train this run again"
        )
    return found


def failure(folder: Path) -> Failure | None:
    """Why the last attempt to train ended, if it failed; raises UserError if that is damaged."""
    path = folder / FAILURE
    return read_as(Failure, path, "delete it and run the same command again") if path.exists() else None


def note_failure(folder: Path, found: Failure) -> None:
    """Write why an attempt to train ended; where that cannot be written, whoever reports it has to do."""
    with suppress(UserError):
        atomic_write(folder / FAILURE, dump(found))


def checked_weights(folder: Path, sha256: str | None = None) -> Path:
    """The weights file of a finished run; raises UserError if it is missing or differs from the record.

    sha256: of the weights that are wanted; those of the record by default.
    """
    finished, path = record(folder), folder / "model.safetensors"
    if finished is None:
        raise UserError(f"{folder} is not finished; run the same command again to finish it")
    if sha256 not in (None, finished.weights.sha256):
        raise UserError(f"{path} holds other weights than this job was started with; run the same command again")
    if not path.exists() or sha256_file(path) != finished.weights.sha256:
        raise UserError(
            f"{path}: missing or changed since its record was written; delete the folder {folder} "
            "and run `snakemake` to train this run again"
        )
    return path
