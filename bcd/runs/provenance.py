"""The circumstances of a training, for its record: commit, hardware, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bcd.runs.record import Git, Hardware

PACKAGE = Path(__file__).parents[1]
VERSIONS = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless")


def git_state() -> Git:
    """Commit and whether the tree differs from it; nulls outside a repository and without git."""
    commit = _git("rev-parse", "HEAD")
    return Git(commit=commit, dirty=bool(_git("status", "--porcelain", "-uno")) if commit else None)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=PACKAGE, check=False)
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def hardware() -> Hardware:
    """Processor, cores and, if torch sees one, the GPU."""
    import torch

    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return Hardware(
        cpu=names[0] if names else platform.processor(),
        cores=os.cpu_count(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def versions() -> dict[str, str]:
    """Python and the packages that results depend on."""
    return {"python": platform.python_version(), **packages()}


@cache
def packages() -> dict[str, str]:
    """Versions of the packages that results depend on; one that is not installed by that name is `none`."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found
