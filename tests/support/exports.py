"""Finished runs of the suite `smoke`, really trained, for tests of exports."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from support import smoke

from bcd.export import finished

DETECTOR = "detection/scenes-smoke/smoke-retinanet/none/s0"
MASKS = "instance/scenes-smoke/smoke-maskrcnn/none/s0"


CHIP = """\
description: Exports of two steps.
task: semantic
seeds: {seeds}
metrics: [{metrics}]
main_metrics: [{main}]
tables:
  - name: chip
    caption: The numbers mean nothing.
    pairs:
      - {{dataset: scenes-smoke, teacher: smoke-teacher, teacher_recipe: smoke, student: smoke-student, recipe: smoke}}
    exports: [{exports}]
    methods: [none, cwd]
{more}panels: {{methods: [none, cwd], images: 2}}
"""


def chip_suite(
    exports: Sequence[str],
    *,
    seeds: int = 1,
    metrics: Sequence[str] = ("miou",),
    main: Sequence[str] = ("miou",),
    more: str = "",
) -> str:
    """The text of a suite `chip`, whose one small student is shown in these forms; `more`: further tables."""
    joined = (", ".join(words) for words in (exports, metrics, main))
    return CHIP.format_map(dict(zip(("exports", "metrics", "main"), joined, strict=True), seeds=seeds, more=more))


def run_of(project: Path, key: str) -> finished.Finished:
    """A run of a project's suite `smoke`."""
    with contextlib.chdir(project):
        run = smoke.runs()[key]
    return finished.of_run("smoke", run, project / "results", project / "data")


def say(_text: str) -> None:
    """Progress is not under test."""
