"""A project in a temporary folder: the real params, workflow and DVC files, over the package under test."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]
PARTS = ("params", "workflow", "Snakefile", "profiles", "dvc.yaml", ".dvc/config", ".dvcignore", ".gitignore")

# Files whose few tests take minutes, longest first: handed out last, one would keep one worker busy and the other idle.
LONG = (
    "test_workflow.py",
    "test_track.py",
    "test_engine.py",
    "test_dvc_remote.py",
    "test_torchrun.py",
    "test_detection_task.py",
)


def pytest_collection_modifyitems(items: list) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def copy_project(target: Path) -> Path:
    """The files that a clone would have, without results or data."""
    for part in PARTS:
        source = ROOT / part
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target / part)
    return target


@pytest.fixture(scope="session")
def smoke_data(tmp_path_factory) -> Path:
    """The generated dataset `scenes-smoke`, made once."""
    from bcd import config
    from bcd.data.obtain import obtain

    root = tmp_path_factory.mktemp("data") / "scenes-smoke"
    dataset = config.load_params(ROOT / "params").datasets["scenes-smoke"]
    obtain("scenes-smoke", dataset, root, mirror_dir=None)
    return root


@pytest.fixture
def project(tmp_path, smoke_data, monkeypatch) -> Path:
    """A project with the dataset `scenes-smoke`, as the current directory."""
    copy_project(tmp_path)
    shutil.copytree(smoke_data, tmp_path / "data" / "scenes-smoke")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def in_child():
    """Run a function in a forked process, which may be killed: returns `(pid, wait)`."""

    def start(function):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                function()
                status = 0
            except SystemExit as error:
                status = error.code
            finally:
                os._exit(status)

        def wait() -> int:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        return pid, wait

    return start


def run(*command: str, cwd: Path, check: bool = True, **env: str) -> subprocess.CompletedProcess:
    """A real command in a project, its output captured together."""
    done = subprocess.run(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | env, check=False
    )
    if check:
        assert done.returncode == 0, done.stdout
    return done


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
