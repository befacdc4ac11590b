"""A Task binds the train loop to one kind of dense prediction; the loop knows nothing else of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, device

from bcd.config.schema.models import AnyModel
from bcd.errors import UserError
from bcd.models.base import DenseModel
from bcd.runs.spec import Evaluation


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    names        of the images, in the order of the rows
    rows         per-image counts, name -> (I, ...), see `bcd.metrics`
    predictions  arrays of the panel images, by `<index>` or `<index>.<part>`
    metrics      of all images
    """

    names: list[str]
    rows: Mapping[str, np.ndarray]
    predictions: Mapping[str, np.ndarray]
    metrics: dict[str, float]


class Task(Protocol):
    """What `bcd.train.loop` asks of a kind of dense prediction."""

    def build(self, model: AnyModel) -> DenseModel:
        """A new model from its params, initialised from torch's global generator."""

    def batches(self, start: int, *, rank: int, world: int, workers: int) -> Iterator[Any]:
        """The training batches from step `start` on; a pure function of the training and the step."""

    def losses(self, model: DenseModel, batch: Any) -> dict[str, Tensor]:
        """Forward `batch` and return the task's own losses, already weighted."""

    def forward(self, model: DenseModel, batch: Any, taps: Collection[str]) -> Any:
        """Forward only, for the tap tensors of a teacher; returns the batch with what its students have to share."""

    def sample(self) -> Any:
        """A batch of one blank image, for observing the shapes of taps."""

    def cost(self, model: DenseModel) -> tuple[int, list[int]]:
        """Multiply-accumulates of inference on one image, and that image's height and width."""

    def taps(self, model: DenseModel) -> dict[str, str]:
        """Tap name -> module path."""

    def evaluate(self, model: DenseModel, evaluation: Evaluation, on: device, images: int | None = None) -> Evaluated:
        """Rows, metrics and panel predictions of the split that `evaluation` names.

        images: so many of the split's, evenly spaced; None for all.
        """


def require_finite(outputs: Tensor, names: Sequence[str]) -> None:
    """Raise UserError unless a model's outputs for the images of these names are numbers: no metric shows it."""
    if not outputs.isfinite().all():
        raise UserError(
            f"the model's outputs are not finite for {names[0]} or the {len(names) - 1} images after it: its training "
            "has diverged; choose a smaller lr, a longer warmup or a smaller clip in params/recipes.yaml"
        )


def numbers(metrics: Mapping[str, float | np.ndarray]) -> dict[str, float]:
    """Metrics of one set of images; a bootstrap has arrays in their place."""
    return {name: float(value) for name, value in metrics.items()}


def channels(values: Sequence[float]) -> tuple[float, float, float]:
    """Three numbers, one a channel."""
    red, green, blue = values
    return red, green, blue
