"""The content-addressed store: `results/store/<spec hash>/` holds one finished or unfinished run.

    spec.json          the full spec, for people and for `bcd plan`
    state.pt           train state while unfinished (see bcd.checkpoint)
    history.jsonl      one line per logging interval
    model.safetensors  the student's weights, nothing else
    record.json        written last: the entry is finished
    eval-<hash>.*      rows, predictions of the panel images and metrics of one evaluation
    failure.json       why the last attempt ended, if it did

No DAG engine declares or deletes any of it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bcd.errors import UserError
from bcd.files import atomic_write, sha256_file
from bcd.runs.run import digest


def entry(spec: dict[str, Any], results: Path = Path("results")) -> Path:
    """The folder of a spec; created by `open_entry`."""
    return results / "store" / digest(spec)


def dump(value: Any) -> str:
    """JSON as we write it everywhere: sorted, indented, newline at the end."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@contextmanager
def open_entry(spec: dict[str, Any], results: Path = Path("results")) -> Iterator[Path]:
    """Create and lock the folder of `spec` for one process.

    Raises UserError when another process holds it. The lock dies with its process, so a kill leaves none behind.
    """
    folder = entry(spec, results)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise UserError(
                f"{folder} is in use by another process (pid {holder}); wait for it or stop it, "
                "then run the same command again"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        if not (folder / "spec.json").exists():
            atomic_write(folder / "spec.json", dump(spec))
        yield folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of ours; raises UserError if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `snakemake` to make it") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run `snakemake` again") from None


def record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished run, or None."""
    path = folder / "record.json"
    return read_json(path) if path.exists() else None


def checked_weights(folder: Path) -> Path:
    """The weights file of a finished run; raises UserError if it is missing or differs from the record."""
    finished, path = record(folder), folder / "model.safetensors"
    if finished is None:
        raise UserError(f"{folder} is not finished; run the same command again to finish it")
    if not path.exists() or sha256_file(path) != finished["weights"]["sha256"]:
        raise UserError(
            f"{path}: missing or changed since its record was written; delete the folder {folder} "
            "and run the same command again"
        )
    return path


def unfinished_step(folder: Path) -> int | None:
    """How far an unfinished run has come, from the note beside its train state."""
    path = folder / "progress.json"
    return read_json(path)["step"] if path.exists() else None
