"""The teacher of a group of students: one forward pass for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bcd.distill.taps import Shapes, Taps, observe
from bcd.runs.spec import RunSpec
from bcd.tasks.task import Task
from bcd.train.learner import tap_paths
from bcd.train.trained import load_model


class Teacher:
    """A frozen model in eval mode and its taps.

    Called with a batch it returns its tap tensors, without gradients, and the batch with what its students share.
    `shapes` are those of its taps; empty where no spec has terms.
    """

    def __init__(self, task: Task, specs: Sequence[RunSpec], folder: Path | None, device: torch.device):
        self._names = {tap for spec in specs for term in spec.training.terms for tap in term.taps}
        self.shapes: Shapes = {}
        known = next((spec.teacher for spec in specs if spec.teacher), None)
        if known is None or folder is None:
            return
        if any(spec.teacher and spec.teacher.weights_sha256 != known.weights_sha256 for spec in specs):
            raise ValueError("the specs of a job name different teachers")
        self._task, self._device = task, device
        self._precision = specs[0].training.recipe.precision
        self._model = load_model(task, known.model, folder, known.weights_sha256).to(device)
        self._model.requires_grad_(False).eval()
        # A tap that it lacks is for the learner to miss whose term asks for it.
        self._names &= task.taps(self._model).keys()
        paths = tap_paths(task, self._model, self._names)
        sample = task.sample().to(device)
        self.shapes = observe(self._model, paths, lambda: task.forward(self._model, sample, self._names))
        self._taps = Taps(self._model, paths)

    @torch.no_grad()
    def __call__(self, batch: Any) -> tuple[dict[str, Tensor], Any]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            batch = self._task.forward(self._model, batch, self._names)
        return self._taps.read(), batch
