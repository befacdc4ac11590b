"""What every detector of either engine is to the rest of the suite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from bcd.models.base import DenseModel

# Regions per image on which a student has to repeat its teacher's class scores: as many as an R-CNN's training sample.
REGIONS = 512


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


class Detector(DenseModel, ABC):
    """What a detector around the models of an engine does.

    `image` is a normalised and padded batch (N, 3, H, W).
    `sizes` has the height and width of each image's real, unpadded part.

    `taps` maps the names of taps to module paths for `bcd.distill.taps`.
    They are `stage1..stage4` (backbone), the pyramid levels `p2`, `p3`, ..., `neck` (the finest level) and `logits`.
    `logits` are class scores on regions, float (R, K + 1): the regions of all images in turn, the background last.
    An engine whose classes are independent (sigmoid) gives the background the logit 0.
    Every method leaves the taps of what it ran.
    """

    @abstractmethod
    def forward(
        self, image: Tensor, sizes: Sizes, targets: list[Targets], regions: Regions | None = None
    ) -> dict[str, Tensor]:
        """The engine's own training losses, weighted as it does; with `regions`, also their `logits` for the tap."""

    @abstractmethod
    def features(self, image: Tensor) -> dict[str, Tensor]:
        """The pyramid by level name, for the taps of backbone and pyramid."""

    @abstractmethod
    def propose(self, image: Tensor, sizes: Sizes) -> Regions:
        """The best regions of each image, and their `logits` for the tap; in eval mode, as a teacher."""

    @abstractmethod
    def detect(self, image: Tensor, sizes: Sizes, originals: Sizes) -> list[Detections]:
        """What is found, in eval mode, at the sizes that the images had before they were resized."""
