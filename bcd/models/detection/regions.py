"""What the dense detectors of both engines do with regions: choose anchors, and give class scores on chosen ones."""

import math

import torch
from torch import Tensor

from bcd.errors import UserError
from bcd.models.detection.detector import REGIONS, Regions


def best_anchors(scores: Tensor, centres: Tensor, size: tuple[int, int]) -> Tensor:
    """Numbers int64 (P,) of the anchors of the highest scores, best first, at most REGIONS.

    Anchors compete if they are centred in the unpadded image of `size` (height, width); `scores` are (A,), `centres`
    (A, 2), x and y in pixels.
    """
    inside = (centres < centres.new_tensor([size[1], size[0]])).all(1)
    return scores.masked_fill(~inside, -math.inf).topk(min(REGIONS, int(inside.sum()))).indices


def anchor_logits(scores: Tensor, regions: Regions) -> Tensor:
    """Class scores (N, A, K) at the anchors of regions, as float (R, K + 1) with the logit 0 of the background last.

    Raises UserError for regions of a teacher that has no anchors, or other ones.
    """
    if regions.index is None:
        raise UserError("the teacher is an R-CNN, whose regions are no anchors; give a dense student a dense teacher")
    anchors = scores.shape[1]
    if anchors != regions.anchors:
        raise UserError(
            f"the teacher has {regions.anchors} anchors in an image, the student {anchors}; give both models the same "
            "engine, head, detection.levels and detection.anchor_scale"
        )
    chosen = torch.cat([each[numbers] for each, numbers in zip(scores, regions.index, strict=True)])
    return torch.cat([chosen, chosen.new_zeros(len(chosen), 1)], 1)
