"""Finished runs of the suite `smoke`, really trained, for tests of exports."""

import contextlib
from pathlib import Path

from support import smoke

from bcd.export import finished

DETECTOR = "detection/scenes-smoke/smoke-retinanet/none/s0"
MASKS = "instance/scenes-smoke/smoke-maskrcnn/none/s0"


def run_of(project: Path, key: str) -> finished.Finished:
    """A run of a project's suite `smoke`."""
    with contextlib.chdir(project):
        run = smoke.runs()[key]
    return finished.of_run("smoke", run, project / "results", project / "data")


def say(_text: str) -> None:
    """Progress is not under test."""
