"""A project in a temporary folder and real commands in it."""

import os
import shutil
import signal
import subprocess
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


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
