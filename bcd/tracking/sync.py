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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bcd.config.schema.suites import Params, Suite, Table
from bcd.errors import UserError, counted
from bcd.runs import store
from bcd.runs.expand import suite_runs, table_rows
from bcd.runs.jsonfile import read_as
from bcd.runs.record import Latency, Report, RunResult, read_spec
from bcd.runs.run import Run
from bcd.runs.status import Status, judge_all
from bcd.tracking import experiment as shown
from bcd.tracking.client import (
    all_runs,
    connected_to,
    describe,
    local_database,
    reason,
    tracking_errors,
    tracking_uri,
)
from bcd.tracking.compare import against_teacher
from bcd.tracking.mlflow_run import TrackedRun
from bcd.tracking.parents import PARENT, mean_runs, push_means
from bcd.tracking.password import without_password
from bcd.tracking.push import push
from bcd.tracking.standing import known_runs, reinstate, remove_older, supersede
from bcd.tracking.state import TrackingState, is_copied, note_copied, server

Entry = tuple[Status | None, TrackedRun]


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
        return f"MLflow at {self.uri}: {counted(self.runs, 'run')} of suite '{self.suite}', {self.written} written"


def sync(params: Params, suite: Suite, results: Path = Path("results"), data: Path = Path("data")) -> SyncReport:
    """Bring MLflow up to the finished runs of a suite and write `results/<suite>/tracking.json`.

    Runs that were synced before and have not changed since are not written again. A server that cannot be reached
    is reported, never raised; UserError is raised for damaged result files only.
    """
    entries = _finished(params, suite, results, data)
    written, error = 0, None
    try:
        if not is_copied(suite.name, _state(suite, entries), results):
            written = _copy(suite, entries, results, data)
    except tracking_errors() as raised:
        error = reason(raised)
    report = SyncReport(suite.name, without_password(tracking_uri(results)), len(entries), written, error)
    TrackingState(suite=suite.name, runs=len(entries), synced=error is None, uri=server()).write(results)
    return report


def _copy(suite: Suite, entries: Sequence[Entry], results: Path, data: Path) -> int:
    """Write what MLflow does not hold yet of these runs; returns how many were written."""
    written = 0
    today = {tracked.key: tracked.spec.hash for _, tracked in entries}
    with connected_to(suite.name, results) as (client, experiment):
        describe(client, experiment, shown.tags(suite))
        runs = all_runs(client, experiment)
        known = known_runs(client, runs)
        remove_older(client, known, today)
        parents = push_means(client, experiment, runs, mean_runs(tracked for _, tracked in entries))
        for status, tracked in entries:
            found = known.get(tracked.key, {}).get(tracked.spec.hash)
            run_id = found and found.info.run_id
            if found is None or found.data.tags.get("bcd.synced") != tracked.state:
                panel = _panel(status, data) if status else None
                run_id = push(client, experiment, found, replace(tracked, panel=panel))
                written += 1
            parent = parents.get(tracked.name.group)
            if parent and (found is None or found.data.tags.get(PARENT) != parent):
                client.set_tag(run_id, PARENT, parent)
        for key, of_key in known.items():
            for spec_hash, run in of_key.items():
                if today.get(key) == spec_hash:
                    reinstate(client, run)
                elif key in today or "bcd.synced" in run.data.tags:  # others are being trained, by hand or for a suite
                    supersede(client, run)
        note_copied(suite.name, _state(suite, entries), results)
    return written


def _state(suite: Suite, entries: Sequence[Entry]) -> object:
    """What a sync of these runs is made of."""
    return [shown.tags(suite), [[tracked.key, tracked.spec.hash, tracked.state] for _, tracked in entries]]


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


def _finished(params: Params, suite: Suite, results: Path, data: Path) -> list[Entry]:
    """Every trained model of the suite that has a small JSON and its record, also where these are not today's.

    With each stands its status in PyTorch, None where only exported files of it are evaluated.
    """
    tables: dict[str, list[Table]] = {}
    for table in suite.tables:
        for row in table_rows(params, suite, table):
            for run in row.runs:
                tables.setdefault(run.key_in_pytorch, []).append(table)
    judged = judge_all(suite.name, suite_runs(params, suite).values(), results, data)
    forms: dict[str, dict[str | None, Status]] = {}
    for status in judged.values():
        if status.result:
            forms.setdefault(status.run.key_in_pytorch, {})[status.run.export] = status
    found = []
    for key, statuses in forms.items():
        evaluated = _of_one_training({name: status.finished for name, status in statuses.items()})
        folder = results / "store" / next(iter(evaluated.values())).store
        if record := store.record(folder):
            tracked = TrackedRun(
                key, suite.name, record.spec, folder, record, evaluated.get(None),
                exports={name: result for name, result in evaluated.items() if name is not None},
                latency=_latency(folder, evaluated),
                against=_against(next(iter(statuses.values())).run, evaluated.get(None), tables[key], judged),
                tables=tuple(dict.fromkeys(table.name for table in tables[key])),
                files=next(iter(statuses.values())).run.files,
            )  # fmt: skip
            found.append((statuses.get(None), tracked))
    return found


def _latency(folder: Path, evaluated: Mapping[str | None, RunResult]) -> dict[str, Latency]:
    """Of exported files, from the reports in the run's folder: small JSONs hold no times."""
    found = {}
    for name, result in evaluated.items():
        path = folder / f"eval-{result.evaluation.hash}.json"
        if name is not None and path.exists() and (latency := read_as(Report, path).latency):
            found[name] = latency
    return found


def _against(
    run: Run, result: RunResult | None, tables: Iterable[Table], judged: Mapping[str, Status]
) -> dict[str, float]:
    """A student beside its teacher, {} where the teacher's result is missing or of other weights than taught it."""
    teacher = judged[run.teacher.key].result if run.teacher else None
    taught = result.teacher if result else None
    if teacher is None or (taught and taught.weights_sha256 != teacher.weights_sha256):
        return {}
    none = judged.get(_none_of(run))
    floor = none.result.metrics if none and none.result else {}
    names = dict.fromkeys(metric for table in tables for metric in table.main_metrics)
    return against_teacher(result.metrics if result else {}, floor, teacher.metrics, names)


def _none_of(run: Run) -> str:
    """The key of the student of the same seed that is trained without distillation."""
    task, dataset, pair, _, repetition = run.key_in_pytorch.split("/")
    return f"{task}/{dataset}/{pair}/none/{repetition}"


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
        mine = known_runs(client, all_runs(client, experiment)).get(key, {})
        run_id = push(client, experiment, mine.get(tracked.spec.hash), tracked)
        for spec_hash, run in mine.items():
            (reinstate if spec_hash == tracked.spec.hash else supersede)(client, run)
        if last:
            failed = (folder / "failure.json").exists()
            client.set_terminated(run_id, "FINISHED" if tracked.record else "FAILED" if failed else "KILLED")
