"""`results/<suite>/tracking.json`: where the runs were last copied to, and whether all arrived."""

from __future__ import annotations

import os
from pathlib import Path

from bcd.errors import UserError
from bcd.files import atomic_write
from bcd.runs.record import Json, dump, read_as
from bcd.tracking.client import local_database, tracking_uri
from bcd.tracking.password import without_password


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
