"""What a suite consists of, what of it is done, and what the rest will cost, from records alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bcd import store
from bcd.data import manifest
from bcd.errors import UserError
from bcd.job import DATA, RESULTS, resolve
from bcd.record import code_fingerprints
from bcd.spec import Run, digest, run_file


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    state: done | stale (the code that made it has changed) | changed (its parameters, data or teacher have) |
    stored (finished in the store, only its file under runs/ is missing) | unfinished | missing.
    """

    run: Run
    state: str
    step: int = 0
    seconds: float | None = None  # estimated train time that is left; None = no record to estimate from
    bytes: int | None = None


def survey(suite: str, runs: dict[str, Run]) -> list[Status]:
    """The status of every run of a suite, teachers first."""
    known = _step_times()
    return [_status(suite, run, known) for run in runs.values()]


def totals(statuses: list[Status]) -> dict[str, Any]:
    """Counts by state, seconds and bytes still needed, and how many runs nothing is known of."""
    rest = [s for s in statuses if s.state in ("missing", "unfinished", "changed")]
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


def _status(suite: str, run: Run, known: dict) -> Status:
    seconds, size = known.get(_cost_key(run.config, bool(run.config["terms"])), (None, None))
    total = run.config["recipe"]["steps"]
    rest = seconds and seconds * total
    edge_path = run_file(suite, run, RESULTS)
    edge = store.read_json(edge_path) if edge_path.exists() else None
    folder = _folder(suite, run)
    if edge and folder and edge["fingerprint"] == run.fingerprint and edge["store"] == folder.name:
        stale = edge["code"] != code_fingerprints(run.config)
        return Status(run, "stale" if stale else "done", total)
    if folder and store.record(folder):
        return Status(run, "stored", total)
    step = store.unfinished_step(folder) if folder else None
    if step:
        return Status(run, "unfinished", step, seconds and seconds * (total - step), size)
    return Status(run, "changed" if edge else "missing", 0, rest, size)


def _folder(suite: str, run: Run) -> Path | None:
    """The run's store folder, or None while its data or its teacher is missing or changed."""
    try:
        return store.entry(resolve(suite, run), RESULTS)
    except UserError:
        return None


def _step_times() -> dict[str, tuple[float, int]]:
    """Cost key -> median seconds of a step and bytes of a run, over every record in the store."""
    samples: dict[str, list[tuple[float, int]]] = {}
    for path in (RESULTS / "store").glob("*/record.json"):
        record = store.read_json(path)
        size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
        key = _cost_key(record["spec"], bool(record["spec"]["terms"]))
        samples.setdefault(key, []).append((record["step_seconds"], size))
    return {key: (median(s for s, _ in found), int(median(b for _, b in found))) for key, found in samples.items()}


def _cost_key(config: dict[str, Any], distilled: bool) -> str:
    """Runs with the same task, model, batch and image size, both distilled or both not, are taken to cost the same."""
    recipe = config["recipe"]
    parts = {k: recipe.get(k) for k in ("batch", "unlabelled_batch", "crop", "resize", "precision")}
    return digest({"task": config["task"], "model": config["model"], "distilled": distilled, **parts})


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
