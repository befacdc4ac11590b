"""What a suite consists of and what of it is done, from small files alone; `bcd.planning.budget` says what the rest
costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bcd.data.acquire import manifest
from bcd.errors import UserError
from bcd.planning.cost import Rates, measured
from bcd.runs import store
from bcd.runs.record import code_fingerprints
from bcd.runs.run import Run, run_file, spec_of
from bcd.train.job import DATA, RESULTS, teacher_facts

TO_TRAIN = ("missing", "unfinished", "changed")


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    state: done | stale (the code that made it has changed) | changed (its parameters, data or teacher have) |
    stored (finished in the store, only its file under runs/ is missing) | unfinished | missing.
    seconds, bytes: what its own training still takes, without what a job pays once; None = unknown.
    """

    run: Run
    state: str
    step: int = 0
    seconds: float | None = None
    bytes: int | None = None

    @property
    def left(self) -> int:
        """Steps that are still to be trained."""
        return self.run.config["recipe"]["steps"] - self.step if self.state in TO_TRAIN else 0


def survey(suite: str, runs: dict[str, Run], rates: Rates | None = None) -> list[Status]:
    """The status of every run of a suite, teachers first; `rates` are those of the records by default."""
    rates = rates or measured(RESULTS)
    manifests = {files: _manifest_sha256(files) for files in {run.files for run in runs.values()}}
    return [_status(suite, run, rates, manifests[run.files]) for run in runs.values()]


def totals(statuses: list[Status]) -> dict[str, Any]:
    """Counts by state, seconds and bytes still needed, and how many runs nothing is known of."""
    rest = [s for s in statuses if s.state in TO_TRAIN]
    return {
        "states": {
            state: sum(s.state == state for s in statuses) for state in dict.fromkeys(s.state for s in statuses)
        },
        "seconds": sum(s.seconds or 0 for s in rest),
        "bytes": sum(s.bytes or 0 for s in rest),
        "unknown": sum(s.seconds is None for s in rest),
    }


def drop_stale(suite: str, statuses: list[Status]) -> list[str]:
    """Forget every code-stale run, so that the next `snakemake` trains it again; returns their keys."""
    import shutil

    dropped = []
    for status in statuses:
        if status.state == "stale":
            path = run_file(suite, status.run, RESULTS)
            shutil.rmtree(RESULTS / "store" / store.read_json(path)["store"], ignore_errors=True)
            path.unlink()
            dropped.append(status.run.key)
    return dropped


def _status(suite: str, run: Run, rates: Rates, manifest_sha256: str | None) -> Status:
    total, seconds, size = run.config["recipe"]["steps"], rates.step(run).seconds, rates.size(run)
    edge_path = run_file(suite, run, RESULTS)
    edge = store.read_json(edge_path) if edge_path.exists() else None
    folder = _folder(suite, run, manifest_sha256)
    if edge and folder and edge["fingerprint"] == run.fingerprint and edge["store"] == folder.name:
        stale = edge["code"] != code_fingerprints(run.config)
        return Status(run, "stale" if stale else "done", total)
    if folder and store.record(folder):
        return Status(run, "stored", total)
    step = (store.unfinished_step(folder) if folder else None) or 0
    state = "unfinished" if step else "changed" if edge else "missing"
    return Status(run, state, step, None if seconds is None else seconds * (total - step), size)


def _folder(suite: str, run: Run, manifest_sha256: str | None) -> Path | None:
    """The run's store folder, or None while its data or its teacher is missing or changed."""
    try:
        teacher = teacher_facts(suite, run)
    except UserError:
        return None
    if manifest_sha256 is None:
        return None
    weights = teacher and teacher["weights_sha256"]
    return store.entry(spec_of(run, manifest_sha256=manifest_sha256, teacher_weights_sha256=weights), RESULTS)


def _manifest_sha256(files: str) -> str | None:
    try:
        return manifest.load(DATA / files).sha256
    except UserError:
        return None


def data_state(runs: dict[str, Run]) -> dict[str, str]:
    """Dataset folder -> what lies there."""
    states = {}
    for files in sorted({run.files for run in runs.values()}):
        try:
            loaded = manifest.load(DATA / files)
            states[files] = ", ".join(word for word in (loaded.origin, loaded.note) if word)
        except UserError:
            states[files] = "missing"
    return states
