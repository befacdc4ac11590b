"""A project in a temporary folder: the real params, workflow and DVC files, over the package under test."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from support.project import ROOT, copy_project

os.environ.setdefault("OMP_NUM_THREADS", "1")
# What was started in the background ignores Ctrl-C, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Files whose few tests take minutes, longest first: handed out last, one would keep one worker busy and the other idle.
LONG = (
    "test_workflow.py",
    "test_carried_exports.py",
    "test_track.py",
    "test_loop.py",
    "test_torchrun.py",
    "test_detection_task.py",
)


def pytest_collection_modifyitems(items: list) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def smoke_data(tmp_path_factory) -> Path:
    """The generated dataset `scenes-smoke`, made once."""
    from bcd.config.load import load_params
    from bcd.data.acquire.obtain import obtain

    root = tmp_path_factory.mktemp("data") / "scenes-smoke"
    dataset = load_params(ROOT / "params").datasets["scenes-smoke"]
    obtain("scenes-smoke", dataset, root, mirror_dir=None)
    return root


@pytest.fixture
def project(tmp_path, smoke_data, monkeypatch) -> Path:
    """A project with the dataset `scenes-smoke`, as the current directory."""
    copy_project(tmp_path)
    shutil.copytree(smoke_data, tmp_path / "data" / "scenes-smoke")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium, driven by playwright; the test is skipped where one of them is missing."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'"
    )
    chromium = os.environ.get("BCD_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("chromium is not installed: apt-get install chromium, or set BCD_CHROMIUM")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


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
