"""The connection to MLflow: where it is, the suite's experiment, and what is in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bcd.errors import UserError
from bcd.files import locked, writing
from bcd.tracking.password import quoted

# Seconds and repetitions for a server that does not answer; MLflow's own are 120 and 7. Telemetry would call home.
VARIABLES = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
LOCAL = "sqlite:"


class Unusable(UserError):
    """The folder of the database cannot be used: it is not writable, say."""


def tracking_uri(results: Path) -> str:
    """MLFLOW_TRACKING_URI, by default a database in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(results / 'mlflow.db').resolve()}"


@contextmanager
def connected(results: Path) -> Iterator[Any]:
    """An MLflow client; a local database is created with it.

    One process at a time, so that none creates a database, an experiment or a run that another is just creating.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = tracking_uri(results)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(results / "mlflow.lock"))
            _make_database(uri)
        except UserError as error:
            raise Unusable(str(error)) from None
        yield mlflow.MlflowClient(uri)


def local_database(uri: str) -> Path | None:
    """The file of a local database, None for a server and for one in memory."""
    path = uri.removeprefix("sqlite:///")
    return Path(path) if path not in (uri, "", ":memory:") else None


def _make_database(uri: str) -> None:
    """Make a local database that is not there, aside, and rename it when it is whole.

    MLflow takes seconds and many transactions to make one; of one made by half it says "table already exists" for ever.
    """
    path = local_database(uri)
    if path is None or path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    aside = path.with_name(f".{path.name}.new")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{aside.name}*"):  # by a process that was killed
            left.unlink()
    store = SqlAlchemyStore(f"sqlite:///{aside}", "./mlruns")
    store.engine.dispose()
    aside.replace(path)


@contextmanager
def connected_to(suite: str, results: Path) -> Iterator[tuple[Any, str]]:
    """An MLflow client and the id of the suite's experiment, which is created if it is new."""
    local = tracking_uri(results).startswith(LOCAL)
    with connected(results) as client:
        yield client, _experiment(client, suite, results / "mlartifacts" if local else None)


def all_runs(client: Any, experiment: str) -> list[Any]:
    """Every MLflow run of an experiment that is not deleted."""
    found: list[Any] = []
    token = None
    while token != "":
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        found += page
        token = page.token or ""
    return found


def describe(client: Any, experiment: str, tags: Mapping[str, str]) -> None:
    """Set those tags of an experiment that differ."""
    before = client.get_experiment(experiment).tags
    for name, value in tags.items():
        if before.get(name) != value:
            client.set_experiment_tag(experiment, name, value)


def tracking_errors() -> tuple[type[Exception], ...]:
    """What MLflow raises when its server or database cannot be used."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, Unusable


def reason(error: BaseException) -> str:
    """Why `error` happened, in one line: the error at its root, since MLflow wraps a refused connection four times."""
    root = error
    while cause := root.__cause__ or root.__context__:
        root = cause
    return quoted(root)


def _experiment(client: Any, suite: str, artifacts: Path | None) -> str:
    found = client.get_experiment_by_name(suite)
    if found is None:
        created: str = client.create_experiment(suite, artifact_location=artifacts and artifacts.resolve().as_uri())
        return created
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)
