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
# What git complains of -> what helps.
REMEDIES = {
    "dubious ownership": f"if you trust its owner, run `git config --global --add safe.directory '{PACKAGE.parent}'`",
    "HEAD": "commit what is there",
    "git repository": "work in a clone, or run `git init` in the project's folder and commit what is there",
    "git: ": "install git",
}
VERSIONS = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless")


def git_state() -> Git:
    """Commit and whether the tree differs from it; nulls where git does not say."""
    commit, _ = _commit()
    return Git(commit=commit, dirty=bool(_git("status", "--porcelain", "-uno")[0]) if commit else None)


def git_trouble() -> str | None:
    """Why records carry no commit, with the remedy; None if they do."""
    commit, why = _commit()
    remedy = next((remedy for sign, remedy in REMEDIES.items() if sign in why), "mend what it names")
    return None if commit else f"records carry no commit ({why.removeprefix('fatal: ')}); {remedy}"


def _commit() -> tuple[str | None, str]:
    """The commit of this code, or None and why; a repository around it that does not hold it is another's."""
    commit, why = _git("rev-parse", "HEAD")
    if commit and not _git("ls-files", "--", "__init__.py")[0]:
        return None, f"no git repository holds {PACKAGE}"
    return commit, why


def _git(*arguments: str) -> tuple[str | None, str]:
    """What git prints, or None; and the first line of its complaint."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, cwd=PACKAGE, check=False, env=os.environ | {"LC_ALL": "C"},
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except OSError as error:
        return None, f"git: {error.strerror}"
    return (done.stdout.strip() if done.returncode == 0 else None), done.stderr.partition("\n")[0]


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
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


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
