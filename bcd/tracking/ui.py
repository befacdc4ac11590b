"""MLflow's pages on this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Thread

from bcd.errors import UserError, harmless
from bcd.tracking.client import Unusable, connected, local_database, reason, tracking_errors, tracking_uri
from bcd.tracking.experiment import address
from bcd.tracking.password import without_password

STARTED = "Uvicorn running on"
USUAL = re.compile(r"\bINFO\b|^\[MLflow\] Security middleware enabled|^Registry store URI not provided")


def ui(port: int = 5000, results: Path = Path("results"), suite: str | None = None) -> int:
    """Serve MLflow's pages on 127.0.0.1 until a signal comes, and return the exit status of a server that ends itself.

    suite: whose runs the printed address opens, if it was synced; None for the list of suites.
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
    database = local_database(uri)
    found = None
    try:
        with connected(results) as client:
            # Creates the database once, before the server's processes all try to, and finds one that is damaged.
            client.search_experiments(max_results=1)
            found = client.get_experiment_by_name(suite) if suite else None
    except Unusable:
        if not (database and database.exists()):
            raise
        # It can be looked at all the same: the folder is somebody else's, or its file system knows no locks.
    except tracking_errors() as error:
        raise UserError(
            f"{database or without_password(uri)} is not a database of this MLflow ({reason(error)}); it is only a "
            "copy of the runs: delete it and run `bcd track --sync`"
        ) from None
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    print(f"runs: http://127.0.0.1:{port}/{address(found and found.experiment_id)} (MLflow starts)", flush=True)
    # A session of its own, so that everything the server starts can be ended with it.
    server = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"], start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert server.stdout is not None
    # Beside the wait: what the server has started may hold its output open longer than it lives.
    reader = Thread(target=_pass_on, args=(server.stdout,), daemon=True)
    reader.start()
    try:
        return server.wait()
    finally:
        _end_session(server)
        reader.join(1)


def _pass_on(lines: Iterable[str]) -> None:
    """Print what a server says that it does not say each time, and that it has started."""
    for line in lines:
        if STARTED in line:
            print("MLflow has started; Ctrl-C ends it", flush=True)
        elif not USUAL.search(line):
            print(harmless(line.rstrip("\n")), file=sys.stderr, flush=True)


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
