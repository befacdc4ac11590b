"""What a term may know of a batch, at the size of each map that it compares."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bcd.label import IGNORE

LABEL_LOGIT = 10.0  # a posterior of 0.9996 among eight classes


class Facts:
    """Teacher maps, masks and labels of one batch; each is brought to a map's size once.

    Args:
        teacher: tap name -> (N, C, H, W).
        valid: bool (N, H, W) at any resolution, or None for all pixels.
        label: int64 (N, H, W) at the image's resolution, or None.
        boxes: N tensors (k, 4) of corners as fractions of the image, or None.
        region_label: int64 (R,), the class of each region of a detector's box head, or None.
    """

    def __init__(
        self,
        teacher: Mapping[str, Tensor],
        valid: Tensor | None,
        label: Tensor | None,
        boxes: Sequence[Tensor] | None,
        region_label: Tensor | None,
    ):
        self.teacher, self.valid, self.label, self.boxes = teacher, valid, label, boxes
        self.region_label = None if region_label is None else region_label.view(-1, 1, 1)
        self._maps: dict[tuple[str, tuple[int, int]], Tensor] = {}
        self._masks: dict[tuple[int, int], dict[str, Tensor | None]] = {}

    def with_label_as_teacher(self) -> "Facts":
        """The same facts with the labels in the place of the teacher's logits and only labelled pixels valid."""
        classes = self.teacher["logits"].shape[1]
        if self.region_label is not None:
            return Facts({"logits": label_logits(self.region_label, classes)}, None, None, None, self.region_label)
        if self.label is None:
            raise ValueError("a term has `target: label`, but the batch has no labels")
        labelled = self.label != IGNORE
        valid = labelled if self.valid is None else self.valid & labelled
        return Facts({"logits": label_logits(self.label, classes)}, valid, self.label, self.boxes, None)

    def teacher_at(self, tap: str, size: tuple[int, int]) -> Tensor:
        """The teacher's map (N, C, *size) of a tap, without its graph; resizing is bilinear."""
        if (tap, size) not in self._maps:
            self._maps[tap, size] = _resize(self.teacher[tap].detach(), size)
        return self._maps[tap, size]

    def masks_at(self, tap: str, size: tuple[int, int]) -> dict[str, Tensor | None]:
        """`valid` and `label` of a tap's pixels, each (N, *size) or None."""
        if tap == "logits" and self.region_label is not None:
            return {"valid": None, "label": self.region_label}
        if size not in self._masks:
            images = {"valid": self.valid, "label": self.label}
            self._masks[size] = {k: x if x is None else resize_nearest(x, size) for k, x in images.items()}
        return self._masks[size]


def label_logits(label: Tensor, classes: int) -> Tensor:
    """Logits (N, classes, H, W) of a teacher that is certain of the label: LABEL_LOGIT for its class, 0 for others.

    label: int64 (N, H, W); where it is no class the logits are all 0.
    """
    known = (label >= 0) & (label < classes)
    one_hot = F.one_hot(label.where(known, 0), classes) * known.unsqueeze(-1)
    return LABEL_LOGIT * one_hot.movedim(-1, 1).float()


def resize_nearest(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask or label (N, H, W) of any dtype to `size`: a cell takes the pixel under its centre.

    So a cell counts as padding where its centre is padding. Demanding that all its pixels be valid would lose nearly
    every coarse cell that touches the void outlines of VOC-style labels. Boundary terms live on these cells.
    """
    rows, columns = (
        (2 * torch.arange(new, device=image.device) + 1) * old // (2 * new)
        for new, old in zip(size, image.shape[1:], strict=True)
    )
    return image if image.shape[1:] == size else image[:, rows[:, None], columns]


def _resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    if features.shape[2:] == size:
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)
