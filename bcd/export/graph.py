"""What is exported: a module from images to tensors, without training parts, hooks and dicts."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional

from bcd.models.base import DenseModel
from bcd.models.segmentor import Segmentor

if TYPE_CHECKING:
    from bcd.models.detection.torchvision_detector import DenseDetector


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


class DenseGraph(nn.Module):
    """A RetinaNet or FCOS as images to what its head says of each of A anchors, before any decoding.

    Class logits (N, A, classes), box deltas (N, A, 4) and, of FCOS, the centerness (N, A, 1).
    """

    def __init__(self, model: DenseDetector):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        said = self.model.head.head(list(self.model.features(image).values()))
        return tuple(said[name] for name in DENSE_OUTPUTS if name in said)


# What torchvision's dense heads return, and what we call it.
DENSE_OUTPUTS = {"cls_logits": "class_logits", "bbox_regression": "box_deltas", "bbox_ctrness": "centerness"}


def in_whole_numbers(module: nn.Module) -> nn.Module:
    """Let timm's convolutions with TensorFlow's padding SAME compute it without fractions; returns the same module.

    They round `side / stride` up as floating-point numbers. With a height and width that stay open, the exporter
    simplifies such expressions layer by layer, and does not come to an end with an EfficientNet. The padding is equal.
    Written as below, without a remainder, each side comes out as `(side - 1) // stride + 1`: with a remainder it is an
    expression that doubles with each stride, and the exporter has no end with a detector, which multiplies sides and
    adds levels.
    """
    for one in module.modules():
        if isinstance(one, Conv2dSame) and all(_reach(one, i) >= one.stride[i] - 1 for i in (0, 1)):
            one.forward = MethodType(_same, one)  # type: ignore[method-assign]
    return module


def _reach(conv: Conv2dSame, axis: int) -> int:
    """How many pixels a kernel reaches beyond its first."""
    return (conv.kernel_size[axis] - 1) * conv.dilation[axis]


def _same(conv: Conv2dSame, x: Tensor) -> Tensor:
    """The convolution, padded so that each side becomes side / stride, rounded up."""
    rows, columns = (_reach(conv, i) - _remainder(side - 1, conv.stride[i]) for i, side in enumerate(x.shape[-2:]))
    padded = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return functional.conv2d(padded, conv.weight, conv.bias, conv.stride, (0, 0), conv.dilation, conv.groups)


def _remainder(number: int, divisor: int) -> int:
    """`number % divisor`, as an expression that the exporter adds to others."""
    return number - number // divisor * divisor


def graph_of(model: DenseModel) -> Graph:
    """The graph of a model in evaluation mode, of those that `require_exportable` lets pass."""
    if isinstance(model, Segmentor):
        return Graph(in_whole_numbers(SegmentorGraph(model).eval()), ("logits",))
    from torchvision.models.detection import FCOS

    from bcd.models.detection.torchvision_detector import DenseDetector

    if not isinstance(model, DenseDetector):
        raise TypeError(f"no graph of a {type(model).__name__}")
    names, module = tuple(DENSE_OUTPUTS.values()), in_whole_numbers(DenseGraph(model).eval())
    if isinstance(model.head, FCOS):
        return Graph(module, names, decoding_of(model, "sides"))
    return Graph(module, names[:2], decoding_of(model, "centre"))


def decoding_of(model: DenseDetector, coder: str) -> dict[str, Any]:
    """What `bcd.export.decode` has to know of a dense detector, as JSON values."""
    head = model.head
    cells = head.anchor_generator.cell_anchors
    return {
        "coder": coder,
        "levels": [{"level": n, "cell": cell.tolist()} for n, cell in zip(model.levels, cells, strict=True)],
        "score_threshold": head.score_thresh,
        "nms_threshold": head.nms_thresh,
        "max_detections": head.detections_per_img,
        "candidates": head.topk_candidates,
    }
