"""A project in a temporary folder and real commands in it."""

import os
import pty
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = (
    ROOT.parent / "shared"
)  # official archives, numbers and models beside a checkout; tests that want them skip without
PARTS = ("params", "workflow", "Snakefile", "profiles", "dvc.yaml", ".dvc/config", ".dvcignore", ".gitignore")


def copy_project(target: Path) -> Path:
    """The files that a clone would have, without results or data."""
    for part in PARTS:
        source = ROOT / part
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target / part)
    return target


def run(*command: str, cwd: Path, check: bool = True, **env: str) -> subprocess.CompletedProcess:
    """A real command in a project, its output captured together."""
    done = subprocess.run(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | env, check=False
    )
    if check:
        assert done.returncode == 0, done.stdout
    return done


def in_terminal(*command: str, cwd: Path, until: str = "", **env: str) -> tuple[int, str]:
    """Exit code and output of a command in a terminal of 160 columns, with Ctrl-C once it has printed `until`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execvpe(command[0], command, os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "50"} | env)
    said = b""
    # Reading fails once no process has the terminal any more.
    with suppress(OSError):
        while piece := os.read(terminal, 1 << 16):
            said += piece
            if until and until.encode() in said:
                os.write(terminal, b"\x03")
                until = ""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode(errors="replace")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def calls_of(function: Callable[[], object], fatal: int = 0) -> int:
    """Run `function` and count the calls of functions, Python's and C's, that it makes in this thread.

    At the `fatal`-th of them the process kills itself: a point of the program, whatever the machine's speed.
    """
    seen = 0

    def count(_frame, event: str, _what) -> None:
        nonlocal seen
        if event in ("call", "c_call"):
            seen += 1
            if seen == fatal:
                kill(os.getpid())

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return seen


def fatal_calls(calls: int, number: int, seed: int = 0) -> list[int]:
    """At which calls to kill a program of so many, time and again, so that all kills land.

    Together they are 0.9 of `calls`: what one process leaves undone takes the next at least as many calls.
    """
    generator = random.Random(seed)
    shares = [generator.uniform(0.5, 1.5) for _ in range(number)]
    return [int(0.9 * calls * share / sum(shares)) for share in shares]
