"""MLflow: one experiment for each suite, one MLflow run for each trained model; see docs/guides/tracking.md.

Tracking is a view of the records: it can be thrown away and made again with `sync`, and nothing fails because a server
is down. An MLflow run is found again by its key and its spec's hash: a resumed or repeated run updates the one it has.
A run whose spec has changed gets a new one, since parameters are write-once, and the old one is tagged as superseded.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bcd.config.schema import Params, Suite
from bcd.errors import UserError
from bcd.files import atomic_write
from bcd.report.panels import run_panel
from bcd.runs import store
from bcd.runs.expand import suite_runs, table_rows
from bcd.runs.run import Run, run_file
from bcd.runs.status import Finished
from bcd.tracking.client import (
    connected,
    known_runs,
    reason,
    supersede,
    tracking_errors,
    tracking_uri,
    without_password,
)
from bcd.tracking.mlflow_run import Entry, push


@dataclass(frozen=True)
class Report:
    """What a sync did: finished runs of the suite, how many were written, and why it ended early, if it did."""

    suite: str
    uri: str
    runs: int
    written: int
    error: str | None = None

    def __str__(self) -> str:
        if self.error:
            return (
                f"warning: MLflow at {self.uri} could not be written ({self.error}); results are complete without it, "
                f"run `bcd track --sync --suite {self.suite}` once it works"
            )
        return f"MLflow at {self.uri}: {self.runs} runs of suite '{self.suite}', {self.written} written"


def sync(params: Params, suite: Suite, results: Path = Path("results"), data: Path = Path("data")) -> Report:
    """Bring MLflow up to the finished runs of a suite and write `results/<suite>/tracking.json`.

    Runs that were synced before and have not changed since are not written again. A server that cannot be reached
    is reported, never raised; UserError is raised for damaged result files only.
    """
    entries = _finished_entries(params, suite, results)
    written, error = 0, None
    try:
        with connected(suite.name, results) as (client, experiment):
            known = known_runs(client, experiment)
            for run, entry in entries:
                mine = known.get(run.key, {})
                found = mine.get(entry.store)
                if found is None or found.data.tags.get("bcd.synced") != entry.state:
                    push(client, experiment, found, replace(entry, panel=_panel(run, entry, results, data)))
                    written += 1
                supersede(client, entry.store, mine)
    except tracking_errors() as raised:
        error = reason(raised)
    report = Report(suite.name, without_password(tracking_uri(results)), len(entries), written, error)
    content = {"suite": suite.name, "runs": len(entries), "synced": error is None}
    atomic_write(results / suite.name / "tracking.json", store.dump(content))
    return report


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


def ui(port: int = 5000, results: Path = Path("results")) -> int:
    """Serve MLflow's pages on 127.0.0.1 until Ctrl-C and return the server's exit status.

    Raises UserError if MLFLOW_TRACKING_URI names a server (which has pages of its own) or if the port is taken.
    """
    uri = tracking_uri(results)
    if uri.startswith(("http:", "https:")):
        raise UserError(f"MLFLOW_TRACKING_URI is a server; open {without_password(uri)} in a browser instead")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from None
    with connected(None, results):
        pass  # creates the database once, before the server's processes all try to
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    # A session of its own, so that everything the server starts can be ended with it.
    # Without the last part MLflow opens its pages about traces of language models.
    print(f"runs: http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning", flush=True)
    server = subprocess.Popen([*command, "--port", str(port), "--workers", "1"], start_new_session=True)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)
        _end_session(server)


def _finished_entries(params: Params, suite: Suite, results: Path) -> list[tuple[Run, Entry]]:
    """Every run of the suite that has its small JSON and its record."""
    tables: dict[str, list[str]] = {}
    for table in suite.tables:
        for row in table_rows(params, suite, table):
            for run in row.runs:
                tables.setdefault(run.key, []).append(table.name)
    entries = []
    for run in suite_runs(params, suite).values():
        path = run_file(suite.name, run, results)
        edge = store.read_json(path) if path.exists() else None
        folder = edge and results / "store" / edge["store"]
        if folder and (record := store.record(folder)):
            names = tuple(dict.fromkeys(tables[run.key]))
            entry = Entry(run.key, suite.name, folder.name, record["spec"], folder, record, edge, names)
            entries.append((run, entry))
    return entries


def _panel(run: Run, entry: Entry, results: Path, data: Path) -> bytes | None:
    """The picture of a run's predictions, if its dataset is here and its parameters are still today's."""
    if entry.edge["fingerprint"] != run.fingerprint:
        return None
    finished = Finished(run, run_file(entry.suite, run, results), entry.edge, entry.folder, stale=False)
    try:
        return run_panel(finished, data)
    except UserError:
        return None


def _push_now(suite: str, key: str, folder: Path, results: Path, last: bool) -> None:
    if not (folder / "spec.json").exists():
        return
    record = store.record(folder)
    entry = Entry(key, suite, folder.name, store.read_json(folder / "spec.json"), folder, record)
    with connected(suite, results) as (client, experiment):
        mine = known_runs(client, experiment).get(key, {})
        run_id = push(client, experiment, mine.get(entry.store), entry)
        supersede(client, entry.store, mine)
        if last:
            failed = (folder / "failure.json").exists()
            client.set_terminated(run_id, "FINISHED" if record else "FAILED" if failed else "KILLED")


def _end_session(server: subprocess.Popen) -> None:
    """End a process and everything it started, gently first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            return
        for _ in range(50):
            server.poll()
            try:
                os.killpg(server.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
