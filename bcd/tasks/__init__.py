"""Kinds of dense prediction, each bound to the train loop by a `bcd.tasks.task.Task`."""

from __future__ import annotations

from pathlib import Path

from bcd.runs.spec import Training
from bcd.tasks.task import Task


def make_task(training: Training, data: Path, *, in_memory: bool = False) -> Task:
    """The task of a training over the dataset folder `data`; `in_memory` keeps decoded images between epochs."""
    if training.task == "semantic":
        from bcd.tasks.semantic import SemanticTask

        return SemanticTask(training, data, in_memory=in_memory)
    from bcd.tasks.detection import DetectionTask

    return DetectionTask(training, data, in_memory=in_memory)
