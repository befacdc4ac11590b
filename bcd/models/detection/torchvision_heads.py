"""The parts of torchvision's detectors above the pyramid, at any size.

Numbers without a comment are those of torchvision's published `*_resnet50_fpn` models, and `_v2` those of its
`*_resnet50_fpn_v2` (torchvision/models/detection: retinanet.py, fcos.py, faster_rcnn.py, mask_rcnn.py).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import Conv2dNormActivation
from torchvision.ops.poolers import LevelMapper

from bcd.models.detection.pyramid import LAST_STAGE
from bcd.models.detection.roi_align import SAMPLES, Pool

Dense = TypeVar("Dense", RetinaNet, FCOS)

# Side of a level's smallest anchor, in strides.
ANCHOR_SCALE = {"retinanet": 4, "fcos": 1, "faster_rcnn": 8, "mask_rcnn": 8}
ASPECT_RATIOS = (0.5, 1.0, 2.0)
# What every head keeps of an image, until `torchvision_detector.build` sets how many.
DETECTIONS = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 100}
PROPOSALS = {"training": 2000, "testing": 1000}  # per level before suppression, and per image after it
SAMPLED_BOXES = 512  # per image, that the heads learn from
FULL_SIDE = 512  # of the smallest square image that has these numbers


def retinanet(channels: int, classes: int, levels: range, anchor_scale: float, convs: int) -> RetinaNet:
    """RetinaNet without backbone and transform; anchors of three sizes per level, a third of an octave apart."""
    return _retinanet(channels, classes, levels, anchor_scale, _tower(channels, convs), _tower(channels, convs))


def retinanet_v2(channels: int, classes: int, levels: range, anchor_scale: float, convs: int) -> RetinaNet:
    """As `retinanet`, with group norm in the towers, and boxes that learn by their generalised IoU."""
    norm = _group_norm(channels)
    towers = [_tower(channels, convs, norm) for _ in range(2)]
    net = _retinanet(channels, classes, levels, anchor_scale, *towers)
    net.head.regression_head._loss_type = "giou"
    return net


def _retinanet(
    channels: int, classes: int, levels: range, anchor_scale: float, scores: nn.Module, boxes: nn.Module
) -> RetinaNet:
    sizes = tuple(tuple(int(2**level * anchor_scale * 2 ** (i / 3)) for i in range(3)) for level in levels)
    anchors = AnchorGenerator(sizes, (ASPECT_RATIOS,) * len(levels))
    head = RetinaNetHead(channels, anchors.num_anchors_per_location()[0], classes)
    head.classification_head.conv, head.regression_head.conv = scores, boxes
    return _headless(RetinaNet, channels, classes, anchors, head)


def fcos(channels: int, classes: int, levels: range, anchor_scale: float, convs: int) -> FCOS:
    """FCOS without backbone and transform.

    Its "anchors" are squares around the locations. Their side is a unit of two things: the range of box sizes that a
    level is responsible for, and the radius in which a location belongs to a box.
    """
    anchors = AnchorGenerator(tuple((2**level * anchor_scale,) for level in levels), ((1.0,),) * len(levels))
    return _headless(FCOS, channels, classes, anchors, _FCOSHead(channels, classes, convs))


def rpn(channels: int, levels: range, anchor_scale: float, convs: int = 1) -> RegionProposalNetwork:
    """Region proposals, one size of anchors per level, by a head of `convs` 3x3 convolutions."""
    anchors = AnchorGenerator(tuple((2**level * anchor_scale,) for level in levels), (ASPECT_RATIOS,) * len(levels))
    head = RPNHead(channels, len(ASPECT_RATIOS), convs)
    head.register_forward_hook(_in_float32)
    return RegionProposalNetwork(
        anchors,
        head,
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=PROPOSALS,
        post_nms_top_n=PROPOSALS,
        nms_thresh=0.7,
    )


def box_head(channels: int, fc_channels: int) -> TwoMLPHead:
    """What regions (R, channels, 7, 7) are classified by: two layers."""
    return TwoMLPHead(channels * 7**2, fc_channels)


def box_head_v2(channels: int, fc_channels: int) -> FastRCNNConvFCHead:
    """As `box_head`: four convolutions with batch norm, and one layer."""
    return FastRCNNConvFCHead((channels, 7, 7), [channels] * 4, [fc_channels], nn.BatchNorm2d)


def mask_head(channels: int, convs: int) -> MaskRCNNHeads:
    """What masks of regions are predicted by, before the last two layers."""
    return MaskRCNNHeads(channels, (channels,) * convs, dilation=1)


def mask_head_v2(channels: int, convs: int) -> MaskRCNNHeads:
    """As `mask_head`, with batch norm."""
    return MaskRCNNHeads(channels, (channels,) * convs, dilation=1, norm_layer=nn.BatchNorm2d)


def roi_heads(
    channels: int,
    classes: int,
    levels: range,
    anchor_scale: float,
    fc_channels: int,
    box: nn.Module,
    mask: nn.Module | None,
) -> RoIHeads:
    """Box head and, unless it is None, mask head of an R-CNN; class 0 of what they predict is the background."""
    predictor = FastRCNNPredictor(fc_channels, classes + 1)
    predictor.register_forward_hook(_in_float32)
    heads = RoIHeads(
        _pool(levels, 7, anchor_scale),
        box,
        predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=SAMPLED_BOXES,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        **DETECTIONS,
    )
    if mask is not None:
        heads.mask_roi_pool = _pool(levels, 14, anchor_scale)
        heads.mask_head = mask
        heads.mask_predictor = MaskRCNNPredictor(channels, channels, classes + 1)
        heads.mask_predictor.register_forward_hook(_in_float32)
        heads.mask_head.register_forward_pre_hook(_in_channels_last)
    return heads


def fit_numbers(rpn: RegionProposalNetwork, roi_heads: RoIHeads, height: int, width: int) -> None:
    """Set how many proposals and sampled boxes an image of this size gets.

    Below FULL_SIDE squared they fall with the area, down to a sixteenth. torchvision's were chosen for 800 x 1333. At
    96 x 96, 2000 proposals are every anchor, and what follows them costs many times what the network does.
    """
    share = min(1.0, max(1 / 16, height * width / FULL_SIDE**2))
    kept = {mode: math.ceil(share * number) for mode, number in PROPOSALS.items()}
    rpn._pre_nms_top_n = rpn._post_nms_top_n = kept
    roi_heads.fg_bg_sampler.batch_size_per_image = math.ceil(share * SAMPLED_BOXES)


class _FCOSHead(FCOSHead):
    """torchvision's, whose 32 groups need 256 channels or so, with groups of 8 channels at any width."""

    def __init__(self, channels: int, classes: int, convs: int):
        nn.Module.__init__(self)
        norm = _group_norm(channels)
        self.box_coder = BoxLinearCoder(normalize_by_size=True)
        self.classification_head = FCOSClassificationHead(channels, 1, classes, convs, norm_layer=norm)
        self.regression_head = FCOSRegressionHead(channels, 1, convs, norm_layer=norm)


def _headless(kind: type[Dense], channels: int, classes: int, anchors: AnchorGenerator, head: nn.Module) -> Dense:
    backbone: Any = nn.Identity()
    backbone.out_channels = channels
    detector = kind(backbone, classes, anchor_generator=anchors, head=head, **DETECTIONS)
    detector.backbone = detector.transform = None
    return detector


def _group_norm(channels: int) -> Callable[[int], nn.Module]:
    return partial(nn.GroupNorm, math.gcd(channels, max(1, channels // 8)))


def _tower(channels: int, convs: int, norm: Callable[[int], nn.Module] | None = None) -> nn.Sequential:
    tower = nn.Sequential(*(Conv2dNormActivation(channels, channels, norm_layer=norm) for _ in range(convs)))
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return tower


def _pool(levels: range, side: int, anchor_scale: float) -> Pool:
    """Pools a region of 224 pixels from level 4, where anchors have the usual size, and others in proportion."""
    pooled = [level for level in levels if level <= LAST_STAGE]
    pool = Pool([f"p{level}" for level in pooled], side, sampling_ratio=SAMPLES)
    # torchvision guesses these from the first batch, whose images may be mostly padding, and keeps them.
    pool.scales = [2.0**-level for level in pooled]
    pool.map_levels = LevelMapper(pooled[0], pooled[-1], canonical_scale=224 * anchor_scale / 8)
    return pool


def _in_channels_last(_module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    """On a CPU the mask branch's convolutions, transposed ones above all, are faster in this layout."""
    return inputs[0].contiguous(memory_format=torch.channels_last)


def _in_float32(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """Under autocast too: boxes are decoded in the dtype of what a head predicts, and bfloat16 is pixels off."""
    return tree_map(Tensor.float, output)
