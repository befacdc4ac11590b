"""What every detector of either engine is to the rest of the suite; `build_detector` makes one from its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from bcd.errors import UserError

if TYPE_CHECKING:
    from bcd.config.schema import Model
    from bcd.models.weights import InitialWeights

# Regions per image on which a student has to repeat its teacher's class scores: as many as an R-CNN's training sample.
REGIONS = 512
# Fields of `detection` that not every head has something for.
HEADS_WITHOUT = {"fc_channels": ("retinanet", "fcos"), "convs": ("faster_rcnn",)}


@dataclass(frozen=True)
class Targets:
    """The objects of one training image.

    boxes    float32 (k, 4), corners x1 y1 x2 y2 in pixels of the batch's image; k may be 0
    classes  int64 (k,), 0..K-1
    masks    uint8 (k, H, W) of 0 and 1 at the batch's size, or None where the task has none
    """

    boxes: Tensor
    classes: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class Regions:
    """Where a detector proposes objects, so that another one can classify the same places.

    boxes  N tensors float32 (P_i, 4), corners in pixels of the batch's image, best first, at most REGIONS
    index  for a dense detector N tensors int64 (P_i,): the number of each region among the image's anchors (or
           locations), all levels in turn; None for an R-CNN, which can classify any box
    anchors  how many an image has, for a dense detector
    """

    boxes: list[Tensor]
    index: list[Tensor] | None = None
    anchors: int | None = None


@dataclass(frozen=True)
class Detections:
    """What a detector finds in one image, best first, in pixels of the original image.

    boxes    float32 (m, 4), corners, within the image
    scores   float32 (m,), 0..1
    classes  int64 (m,), 0..K-1
    masks    uint8 (m, H, W) of 0 and 1, or None
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor | None = None


Sizes = list[tuple[int, int]]


class Detector(Protocol):
    """An nn.Module around the models of an engine.

    `image` is a normalised and padded batch (N, 3, H, W); `sizes` has the height and width of each image's real,
    unpadded part. `taps` maps `stage1..stage4` (backbone), the pyramid levels `p2`, `p3`, ..., `neck` (its finest
    level) and `logits` to module paths for `bcd.distill.taps`. `logits` are class scores on regions, float (R, K + 1)
    with
    the regions of all images in turn and the background last; an engine whose classes are independent (sigmoid) gives
    the background the logit 0. Every method leaves the taps of what it ran.
    """

    taps: dict[str, str]
    weights: InitialWeights

    def __call__(
        self, image: Tensor, sizes: Sizes, targets: list[Targets], regions: Regions | None = None
    ) -> dict[str, Tensor]:
        """The engine's own training losses, weighted as it does; with `regions`, also their `logits` for the tap."""

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """The pyramid by level name, for the taps of backbone and pyramid."""

    def propose(self, image: Tensor, sizes: Sizes) -> Regions:
        """The best regions of each image, and their `logits` for the tap; in eval mode, as a teacher."""

    def detect(self, image: Tensor, sizes: Sizes, originals: Sizes) -> list[Detections]:
        """What is found, in eval mode, at the sizes that the images had before they were resized."""


def build_detector(model: Model, classes: int) -> Detector:
    """Build the detector that `model` describes; float32, on the CPU, in training mode.

    Random initial weights come from torch's global generator alone, so seed it first. Raises UserError naming the field
    for what the engine does not offer, and for an engine that is not installed.
    """
    for field, heads in HEADS_WITHOUT.items():
        if model.head in heads and getattr(model.detection, field) is not None:
            raise UserError(f"model.detection.{field} means nothing to '{model.head}'; remove it")
    if model.detection.engine == "detectron2":
        from bcd.models.detection.detectron2_detector import build
    else:
        from bcd.models.detection.torchvision_detector import build
    return build(model, classes)
