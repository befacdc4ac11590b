"""A Task binds the train loop to one kind of dense prediction; the loop knows nothing else of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, device, nn


class Task(Protocol):
    """What `bcd.engine` asks of a kind of dense prediction."""

    def build(self, model: dict[str, Any]) -> nn.Module:
        """A new model from its resolved params, initialised from torch's global generator."""

    def batches(self, start: int, *, rank: int, world: int, workers: int) -> Iterator[Any]:
        """The training batches from step `start` on; a pure function of the spec and the step."""

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Forward `batch` and return the task's own losses, already weighted."""

    def forward(self, model: nn.Module, batch: Any) -> None:
        """Forward only, for the tap tensors of a teacher."""

    def taps(self, model: nn.Module) -> dict[str, str]:
        """Tap name -> module path."""

    def evaluate(self, model: nn.Module, evaluation: dict[str, Any], on: device) -> dict[str, Any]:
        """`names`, `rows` (per-image counts), `predictions` of the panel images, and `metrics`."""


def make_task(spec: dict[str, Any], data: Path, *, in_memory: bool = False) -> Task:
    """The task of a spec over the dataset folder `data`; `in_memory` keeps decoded images between epochs."""
    from bcd.tasks.semantic import SemanticTask

    return {"semantic": SemanticTask}[spec["task"]](spec, data, in_memory=in_memory)
