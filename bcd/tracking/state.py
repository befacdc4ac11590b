"""Where a suite's runs were last copied to, and whether all arrived and are still there.

`results/<suite>/tracking.json` is the edge of the DAG. `results/mlflow.copied.json` saves a sync that has nothing to do
from importing MLflow, which takes longer than all the rest.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from bcd.errors import UserError
from bcd.files import atomic_write
from bcd.runs.jsonfile import Json, dump, read_as
from bcd.runs.spec import digest
from bcd.tracking.client import local_database, tracking_uri
from bcd.tracking.password import without_password

SQLITE = b"SQLite format 3\0"  # how a database begins


class TrackingState(Json):
    """What the last sync has come to. `uri` is that of a server, None for the database in the results folder."""

    suite: str
    runs: int
    synced: bool
    uri: str | None = None

    def write(self, results: Path) -> None:
        """Write it where `state_file` says."""
        atomic_write(state_file(self.suite, results), dump(self))


def state_file(suite: str, results: Path) -> Path:
    """Where a suite's state lies."""
    return results / suite / "tracking.json"


def server() -> str | None:
    """The address that MLFLOW_TRACKING_URI names, without its password; None where it is not set."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    return without_password(uri) if uri else None


def unsynced(suite: str, results: Path) -> str:
    """Why the runs should be copied again although a sync was made, or "" where that is not so."""
    path = state_file(suite, results)
    if not path.exists():
        return ""
    try:
        found = read_as(TrackingState, path)
    except UserError as error:
        return str(error)
    if not found.synced:
        return "MLflow could not be written the last time"
    if found.uri != server():
        return "the runs were copied to another MLflow than today's"
    database = local_database(tracking_uri(results))
    if database and not database.exists():
        return "MLflow's database is gone"
    return ""


class Copied(Json):
    """Of each suite, the hash of its runs and of the local database as a complete sync left them."""

    suites: dict[str, str] = {}


def is_copied(suite: str, runs: object, results: Path) -> bool:
    """Whether a local database is as the last sync of these very runs left it; never so for a server."""
    left = _left(runs, results)
    return left is not None and _copied(results).suites.get(suite) == left


def note_copied(suite: str, runs: object, results: Path) -> None:
    """Note that a local database holds these runs of a suite, and that it is as it is now."""
    if left := _left(runs, results):
        suites = {**_copied(results).suites, suite: left}
        with suppress(UserError, OSError):  # without it the next sync takes longer, and nothing else
            atomic_write(results / "mlflow.copied.json", dump(Copied(suites=suites)))


def _left(runs: object, results: Path) -> str | None:
    """Of a database its size and time count, as whoever writes to it changes them.

    None for one that cannot be read, and for one with a log beside it, which may hold more than the database.
    """
    database = local_database(tracking_uri(results))
    if database is None or any(database.with_name(f"{database.name}-{log}").exists() for log in ("wal", "journal")):
        return None
    try:
        found = database.stat()
        with database.open("rb") as file:
            if file.read(len(SQLITE)) != SQLITE:
                return None
    except OSError:
        return None
    return digest({"runs": runs, "database": [str(database), found.st_size, found.st_mtime_ns]})


def _copied(results: Path) -> Copied:
    try:
        return read_as(Copied, results / "mlflow.copied.json")
    except UserError:  # it is missing or damaged: then the next sync looks at MLflow itself
        return Copied()
