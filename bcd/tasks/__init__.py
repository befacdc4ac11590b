"""A Task binds the train loop to one kind of dense prediction; the loop knows nothing else of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, device, nn


class Task(Protocol):
    """What `bcd.train.loop` asks of a kind of dense prediction."""

    def build(self, model: dict[str, Any]) -> nn.Module:
        """A new model from its resolved params, initialised from torch's global generator."""

    def batches(self, start: int, *, rank: int, world: int, workers: int) -> Iterator[Any]:
        """The training batches from step `start` on; a pure function of the spec and the step."""

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Forward `batch` and return the task's own losses, already weighted."""

    def forward(self, model: nn.Module, batch: Any, taps: Collection[str]) -> Any:
        """Forward only, for the tap tensors of a teacher; returns the batch with what its students have to share."""

    def sample(self) -> Any:
        """A batch of one blank image, for observing the shapes of taps."""

    def cost(self, model: nn.Module) -> tuple[int, list[int]]:
        """Multiply-accumulates of inference on one image, and that image's height and width."""

    def taps(self, model: nn.Module) -> dict[str, str]:
        """Tap name -> module path."""

    def evaluate(self, model: nn.Module, evaluation: dict[str, Any], on: device) -> dict[str, Any]:
        """`names`, `rows` (per-image counts), `predictions` of the panel images, and `metrics`."""


def make_task(spec: dict[str, Any], data: Path, *, in_memory: bool = False) -> Task:
    """The task of a spec over the dataset folder `data`; `in_memory` keeps decoded images between epochs."""
    if spec["task"] == "semantic":
        from bcd.tasks.semantic import SemanticTask as Kind
    else:
        from bcd.tasks.detection import DetectionTask as Kind
    return Kind(spec, data, in_memory=in_memory)
