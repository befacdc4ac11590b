"""What a command ends with: real signals to real processes."""

import signal
import subprocess
import sys

import pytest
from support.project import copy_project, run

from bcd.cli.entry import KEPT

# Sends its own process a signal when the command reads the params, then goes on as `bcd` does.
SIGNALLED = """
import os, sys
from bcd.config import load
number, whole = int(sys.argv.pop(1)), load.load_params
def load_params():
    os.kill(os.getpid(), number)
    return whole()
load.load_params = load_params
from bcd.cli.entry import main
main()
"""
KEY = "semantic/scenes-smoke/smoke-teacher/none/s0"
COMMANDS = {
    "fetch": ["scenes-smoke"],
    "plan": [],
    "train": [KEY],
    "evaluate": [KEY],
    "tables": [],
    "panels": [],
    "track": ["--sync"],
}


@pytest.fixture(scope="module", name="project")
def project_fixture(tmp_path_factory):
    project = copy_project(tmp_path_factory.mktemp("project"))
    (project / "params/suite.yaml").write_text("suite: smoke\n")
    run(sys.executable, "-m", "bcd.cli", "fetch", "scenes-smoke", cwd=project)
    return project


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_every_command_with_its_status_and_a_sentence(project, command, number):
    call = [sys.executable, "-c", SIGNALLED, str(int(number)), command, *COMMANDS[command]]
    done = subprocess.run(call, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.splitlines()[-1] == f"bcd: stopped by {number.name}; {KEPT}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["export", KEY], "no file is written, the same command begins anew"),
        (["predict", KEY, "data", "--out", "seen"], "images that are done are kept, the same command continues"),
    ],
)
def test_what_is_said_of_an_export_is_true_of_it(project, command, sentence):
    call = [sys.executable, "-c", SIGNALLED, str(int(signal.SIGINT)), *command]
    done = subprocess.run(call, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == f"bcd: stopped by SIGINT; {sentence}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_is_saved_and_says_so(project, number):
    settings = ["--set", "recipe.steps=10000", "--set", "recipe.log_every=1", "--set", f"recipe.lr=0.00{number:d}"]
    call = [sys.executable, "-m", "bcd.cli", "train", KEY, *settings]
    with subprocess.Popen(call, cwd=project, stderr=subprocess.PIPE, text=True) as training:
        assert any("step 3/10000" in line for line in training.stderr)
        training.send_signal(number)
        said = training.stderr.read()
        assert training.wait() == 128 + number
    assert said.splitlines()[-1].startswith("bcd: stopped at step ")
    assert said.splitlines()[-1].endswith("of 10000; the same command continues from here")
    states = list(project.glob("results/store/*/state.pt"))
    assert states
    for path in states:
        path.unlink()


def test_a_training_does_not_import_the_compiler(project):
    compiler = "('torch._dynamo', 'torch._inductor', 'sympy')"
    arguments = ["train", KEY, "--set", "recipe.steps=2"]
    code = (
        "import sys; from bcd.cli.main import app; "
        f"app({arguments}, standalone_mode=False); print([name for name in {compiler} if name in sys.modules])"
    )
    assert run(sys.executable, "-c", code, cwd=project).stdout.splitlines()[-1] == "[]"


def test_the_end_looks_through_nothing_for_garbage(project):
    code = (
        "import atexit, gc, sys; sys.argv = ['bcd', 'plan']; "
        "atexit.register(lambda: print(gc.get_freeze_count(), len(gc.get_objects()))); "
        "from bcd.cli.entry import main; main()"
    )
    frozen, watched = map(int, run(sys.executable, "-c", code, cwd=project).stdout.splitlines()[-1].split())
    assert frozen > 10 * watched


def test_what_was_started_to_ignore_ctrl_c_ignores_it(project):
    call = [sys.executable, "-c", SIGNALLED, str(int(signal.SIGINT)), "plan"]
    done = subprocess.run(
        call, cwd=project, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), check=False,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0


def test_a_mistake_is_status_2(project):
    done = subprocess.run(
        [sys.executable, "-m", "bcd.cli", "plan", "--suite", "smok"], cwd=project, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("bcd: ") and "did you mean 'smoke'" in done.stderr
