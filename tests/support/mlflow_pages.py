"""MLflow's pages, served by `bcd track --ui` of the project that is the current directory."""

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@contextmanager
def pages(port):
    """A process that serves MLflow's pages."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bcd.cli", "track", "--ui", "--suite", "smoke", "--port", str(port)],
        start_new_session=True,
        preexec_fn=hear_interrupts,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def answers():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read() == b"OK"
        except OSError:
            return False

    try:
        wait_for(answers, 300)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def hear_interrupts():
    """Undo what a shell does to the jobs it starts in the background, and their children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
