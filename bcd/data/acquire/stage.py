"""A dataset's payload is made aside, and takes the place of the old one when it is whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bcd.data.acquire import manifest as manifests
from bcd.data.acquire.manifest import ARCHIVES, FILES, MANIFEST
from bcd.errors import UserError
from bcd.files import locked, read_bytes, writing

LOCK = ".lock"
RESERVED = frozenset({MANIFEST, FILES, ARCHIVES, LOCK})


def alone(root: Path) -> AbstractContextManager[None]:
    """Hold the dataset's lock; raises UserError where another process has it."""
    busy = f"another process (pid PID) is fetching into {root}; wait until it ends and run the same command again"
    return locked(root / LOCK, busy)


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A new directory `root/.unpack-<pid>`, removed at the end; what killed processes left goes first."""
    for stale in root.glob(".unpack-*"):
        shutil.rmtree(stale)
    for stale in root.glob(".*.tmp"):
        stale.unlink()
    stage = root / f".unpack-{os.getpid()}"
    with writing(stage):
        stage.mkdir()
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def install(root: Path, stage: Path) -> None:
    """Replace the old payload by the staged one; what a fetch did not write is left alone.

    files.csv stays until it is overwritten, so that an interrupted replacement still knows the old payload.
    """
    new = {path.name for path in stage.iterdir()}
    if clash := new & RESERVED:
        raise UserError(f"an archive for {root} holds {min(clash)} at its top; name a directory to keep")
    with writing(root / MANIFEST):
        (root / MANIFEST).unlink(missing_ok=True)
    with writing(root):
        replaced = stage / ".replaced"
        replaced.mkdir()
        for name in (new | _recorded(root)) - RESERVED:
            if (root / name).exists():
                (root / name).rename(replaced / name)
        for name in new:
            (stage / name).rename(root / name)


def _recorded(root: Path) -> set[str]:
    """Top-level names of the payload that files.csv lists, none when there is no such file."""
    try:
        return {Path(path).parts[0] for path in manifests.listed(read_bytes(root / FILES))} - {"/", ".."}
    except (UserError, ValueError):  # nothing was recorded, or what was is damaged
        return set()
