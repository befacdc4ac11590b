"""MLflow: one experiment for each suite, one MLflow run for each trained model, whatever forms it was evaluated in; see
docs/guides/tracking.md.

Tracking is a view of the records: it can be thrown away and made again with `sync`, and nothing fails because a server
is down. An MLflow run is found again by its key and its spec's hash: a resumed or repeated run updates the one it has.
A run whose spec has changed gets a new one, since parameters are write-once, and the old one is tagged as superseded.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bcd.config.schema.suites import Params, Suite
from bcd.errors import UserError
from bcd.runs import store
from bcd.runs.expand import suite_runs, table_rows
from bcd.runs.record import RunResult, read_spec
from bcd.runs.status import Status, judge_all
from bcd.tracking.client import (
    connected_to,
    known_runs,
    local_database,
    reason,
    remove_exports,
    supersede,
    tracking_errors,
    tracking_uri,
)
from bcd.tracking.mlflow_run import TrackedRun, push
from bcd.tracking.password import without_password
from bcd.tracking.state import TrackingState, is_copied, note_copied, server


@dataclass(frozen=True)
class SyncReport:
    """What a sync did: trained models of the suite, how many were written, and why it ended early, if it did."""

    suite: str
    uri: str
    runs: int
    written: int
    error: str | None = None

    def __str__(self) -> str:
        if self.error:
            file = local_database(self.uri)
            first = f"it is only a copy of them: if this stays so, delete {file} and " if file and file.exists() else ""
            return (
                f"warning: MLflow at {self.uri} could not be written ({self.error}); results are complete without it; "
                f"{first}run `bcd track --sync --suite {self.suite}`{'' if first else ' once it works'}"
            )
        return f"MLflow at {self.uri}: {self.runs} runs of suite '{self.suite}', {self.written} written"


def sync(params: Params, suite: Suite, results: Path = Path("results"), data: Path = Path("data")) -> SyncReport:
    """Bring MLflow up to the finished runs of a suite and write `results/<suite>/tracking.json`.

    Runs that were synced before and have not changed since are not written again. A server that cannot be reached
    is reported, never raised; UserError is raised for damaged result files only.
    """
    entries = _finished(params, suite, results, data)
    written, error = 0, None
    try:
        if not is_copied(suite.name, _states(entries), results):
            written = _copy(suite.name, entries, results, data)
    except tracking_errors() as raised:
        error = reason(raised)
    report = SyncReport(suite.name, without_password(tracking_uri(results)), len(entries), written, error)
    TrackingState(suite=suite.name, runs=len(entries), synced=error is None, uri=server()).write(results)
    return report


def _copy(suite: str, entries: Sequence[tuple[Status | None, TrackedRun]], results: Path, data: Path) -> int:
    """Write what MLflow does not hold yet of these runs; returns how many were written."""
    written = 0
    with connected_to(suite, results) as (client, experiment):
        known = known_runs(client, experiment)
        for status, tracked in entries:
            mine = known.get(tracked.key, {})
            found = mine.get(tracked.spec.hash)
            if found is None or found.data.tags.get("bcd.synced") != tracked.state:
                push(client, experiment, found, replace(tracked, panel=_panel(status, data) if status else None))
                written += 1
            supersede(client, tracked.spec.hash, mine)
        remove_exports(client, known)
        note_copied(suite, _states(entries), results)
    return written


def _states(entries: Sequence[tuple[Status | None, TrackedRun]]) -> list[list[str]]:
    return [[tracked.key, tracked.spec.hash, tracked.state] for _, tracked in entries]


def follow(
    suite: str,
    key: str,
    folder: Path,
    results: Path = Path("results"),
    *,
    parent: int | None = None,
    interval: float = 30,
) -> None:
    """Push a training run's new history lines every `interval` seconds; for a process of its own, beside the trainer.

    folder: the run's place in the store. parent: the trainer's process id, the caller's parent by default. Returns
    after a last push when the run is finished or the trainer is gone. Never raises: what could not be written now is
    written by the next push or by `sync`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, whose end ends this, too
    parent = parent or os.getppid()

    def ended() -> bool:
        return (folder / "record.json").exists() or os.getppid() != parent

    last = False
    while not last:
        last = ended()
        try:
            _push_now(suite, key, folder, results, last)
        except Exception as error:
            logging.getLogger(__name__).warning("MLflow: %s", reason(error))
        wait_until = time.monotonic() + interval
        while not last and not ended() and time.monotonic() < wait_until:
            time.sleep(min(1.0, interval))


def _finished(params: Params, suite: Suite, results: Path, data: Path) -> list[tuple[Status | None, TrackedRun]]:
    """Every trained model of the suite that has a small JSON and its record, also where these are not today's.

    With each stands its status in PyTorch, None where only exported files of it are evaluated.
    """
    tables: dict[str, list[str]] = {}
    for table in suite.tables:
        for row in table_rows(params, suite, table):
            for run in row.runs:
                tables.setdefault(run.key_in_pytorch, []).append(table.name)
    forms: dict[str, dict[str | None, Status]] = {}
    for status in judge_all(suite.name, suite_runs(params, suite).values(), results, data).values():
        if status.result:
            forms.setdefault(status.run.key_in_pytorch, {})[status.run.export] = status
    found = []
    for key, statuses in forms.items():
        evaluated = _of_one_training({name: status.finished for name, status in statuses.items()})
        folder = results / "store" / next(iter(evaluated.values())).store
        if record := store.record(folder):
            exports = {name: result for name, result in evaluated.items() if name is not None}
            names = tuple(dict.fromkeys(tables[key]))
            tracked = TrackedRun(key, suite.name, record.spec, folder, record, evaluated.get(None), exports, names)
            found.append((statuses.get(None), tracked))
    return found


def _of_one_training(results: Mapping[str | None, RunResult]) -> dict[str | None, RunResult]:
    """Of a student's evaluations those of the weights that PyTorch's is of, or the first, where it has none.

    Others are of a training before or after that one, and are measured anew when `snakemake` is called.
    """
    main = results.get(None) or next(iter(results.values()))
    return {name: result for name, result in results.items() if result.store == main.store}


def _panel(status: Status, data: Path) -> bytes | None:
    """The picture of a run's predictions, if its dataset is here and its parameters are still today's."""
    from bcd.report.panels import run_panel

    try:
        return run_panel(status, data) if status.usable else None
    except UserError:
        return None


def _push_now(suite: str, key: str, folder: Path, results: Path, last: bool) -> None:
    if not (folder / "spec.json").exists():
        return
    tracked = TrackedRun(key, suite, read_spec(folder), folder, store.record(folder))
    with connected_to(suite, results) as (client, experiment):
        mine = known_runs(client, experiment).get(key, {})
        run_id = push(client, experiment, mine.get(tracked.spec.hash), tracked)
        supersede(client, tracked.spec.hash, mine)
        if last:
            failed = (folder / "failure.json").exists()
            client.set_terminated(run_id, "FINISHED" if tracked.record else "FAILED" if failed else "KILLED")
