"""What is exported: a module from images to tensors, without training parts, hooks and dicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bcd.config.schema.models import AnyModel
from bcd.errors import UserError
from bcd.models.base import DenseModel

# Heads that pool a map to a grid of cells: traced with one size, their exported pooling is wrong at every other.
STATIC_HEADS = ("psp", "uper")


@dataclass(frozen=True)
class Graph:
    """A module from images float32 (N, 3, H, W), normalised, to a tuple of tensors, and the tensors' names.

    decoding  what `bcd.export.decode` has to know, for a detector
    """

    module: nn.Module
    outputs: tuple[str, ...]
    decoding: dict[str, Any] | None = None


class SegmentorGraph(nn.Module):
    """A segmentor as images to logits, float32 (N, classes, H, W), at the size of the image."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.model(image)["logits"],)


def graph_of(model: DenseModel) -> Graph:
    """The graph of a trained model in evaluation mode."""
    return Graph(SegmentorGraph(model).eval(), ("logits",))


def require_dynamic(model: AnyModel) -> None:
    """Raise UserError for a model whose graph cannot leave height and width open."""
    if model.head in STATIC_HEADS:
        raise UserError(
            f"--dynamic: the head '{model.head}' pools to fixed grids, which exporters get wrong at other sizes; leave "
            "--dynamic out, and export one file for each size"
        )
