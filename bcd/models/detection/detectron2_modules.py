"""What makes models of detectron2 detectors of ours, and backbones of ours its backbones; imports detectron2."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, detector_postprocess
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from bcd.models.backbones import build_backbone
from bcd.models.detection.detector import REGIONS, Detections, Detector, Regions, Sizes, Targets
from bcd.models.detection.regions import anchor_logits, best_anchors
from bcd.models.layers import Backbone as OurBackbone
from bcd.models.weights import InitialWeights

STAGES = ("res2", "res3", "res4", "res5")


class DenseDetector(Detector):
    """A RetinaNet (Lin et al., ICCV 2017; detectron2/modeling/meta_arch/retinanet.py).

    detectron2 divides its losses by a running mean of the number of positive anchors, a Python number that no state
    dict has. The buffer `normaliser` keeps it, so that a resumed training goes on as if it had not stopped.
    """

    model: Any  # detectron2's, whose attributes torch does not know

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.logits = nn.Identity()
        self.normaliser: Tensor
        self.register_buffer("normaliser", torch.tensor(100.0, dtype=torch.float64))
        self.taps = taps(self.model.head_in_features)
        self.weights = InitialWeights()

    def forward(
        self, image: Tensor, sizes: Sizes, targets: list[Targets], regions: Regions | None = None
    ) -> dict[str, Tensor]:
        features, predictions = self._predict(image)
        self.model.loss_normalizer = self.normaliser.item()
        with EventStorage():
            losses = self.model.forward_training(
                ImageList(image, sizes), features, predictions, instances(sizes, targets)
            )
        self.normaliser.fill_(self.model.loss_normalizer)
        if regions is not None:
            self.logits(anchor_logits(self._per_anchor(predictions[0]), regions))
        return losses

    def features(self, image: Tensor) -> dict[str, Tensor]:
        return self.model.backbone(image)

    def propose(self, image: Tensor, sizes: Sizes) -> Regions:
        """The anchors of the highest class scores, moved to where the detector sees their objects; no suppression."""
        features, (score_maps, delta_maps) = self._predict(image)
        scores, deltas = self._per_anchor(score_maps), self._per_anchor(delta_maps, 4)
        anchors = Boxes.cat(self.model.anchor_generator(features))
        best = [best_anchors(s.amax(1), anchors.get_centers(), size) for s, size in zip(scores, sizes, strict=True)]
        boxes = []
        for delta, index, size in zip(deltas.detach(), best, sizes, strict=True):
            moved = Boxes(self.model.box2box_transform.apply_deltas(delta[index], anchors.tensor[index]))
            moved.clip(size)
            boxes.append(moved.tensor)
        regions = Regions(boxes, best, anchors=scores.shape[1])
        self.logits(anchor_logits(scores, regions))
        return regions

    def detect(self, image: Tensor, sizes: Sizes, originals: Sizes) -> list[Detections]:
        results = self.model.forward_inference(ImageList(image, sizes), *self._predict(image))
        return detections(results, originals)

    def _predict(self, image: Tensor) -> tuple[list[Tensor], tuple[list[Tensor], list[Tensor]]]:
        """Pyramid, and the head's class scores and box deltas per level; these in float32, under autocast too."""
        pyramid = self.features(image)
        features = [pyramid[level] for level in self.model.head_in_features]
        scores, deltas = self.model.head(features)
        return features, ([x.float() for x in scores], [x.float() for x in deltas])

    def _per_anchor(self, maps: list[Tensor], values: int | None = None) -> Tensor:
        """Maps of the levels to (N, anchors, values), the anchors in the generator's order; values = K by default."""
        values = values or self.model.num_classes
        return torch.cat([permute_to_N_HWA_K(level, values) for level in maps], 1)


class RegionDetector(Detector):
    """A Faster or Mask R-CNN (detectron2/modeling/meta_arch/rcnn.py and roi_heads).

    Masks are learned as bitmaps (its `MASK_FORMAT: bitmask`), which are cropped and resized to the mask head's size;
    its default rasterises polygons at that size instead.
    """

    model: Any  # detectron2's, whose attributes torch does not know

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.logits = nn.Identity()
        self.taps = taps(self.model.proposal_generator.in_features)
        self.weights = InitialWeights()

    def forward(
        self, image: Tensor, sizes: Sizes, targets: list[Targets], regions: Regions | None = None
    ) -> dict[str, Tensor]:
        pyramid, images, truth = self.features(image), ImageList(image, sizes), instances(sizes, targets)
        with EventStorage():
            proposals, losses = self.model.proposal_generator(images, pyramid, truth)
            _, region_losses = self.model.roi_heads(images, pyramid, proposals, truth)
        if regions is not None:
            self._leave_logits(pyramid, regions.boxes)
        return losses | region_losses

    def features(self, image: Tensor) -> dict[str, Tensor]:
        return self.model.backbone(image)

    def propose(self, image: Tensor, sizes: Sizes) -> Regions:
        """The first of the region proposal network's suppressed and ordered boxes."""
        pyramid = self.features(image)
        proposals, _ = self.model.proposal_generator(ImageList(image, sizes), pyramid, None)
        boxes = [found.proposal_boxes.tensor[:REGIONS].float() for found in proposals]
        self._leave_logits(pyramid, boxes)
        return Regions(boxes)

    def detect(self, image: Tensor, sizes: Sizes, originals: Sizes) -> list[Detections]:
        pyramid, images = self.features(image), ImageList(image, sizes)
        proposals, _ = self.model.proposal_generator(images, pyramid, None)
        results, _ = self.model.roi_heads(images, pyramid, proposals, None)
        return detections(results, originals)

    def _leave_logits(self, pyramid: dict[str, Tensor], boxes: list[Tensor]) -> None:
        heads = self.model.roi_heads
        pooled = heads.box_pooler([pyramid[level] for level in heads.box_in_features], [Boxes(b) for b in boxes])
        scores, _ = heads.box_predictor(heads.box_head(pooled))
        self.logits(scores.float())


class OwnBackbone(Backbone):
    """One of our backbones, at strides 4 to 32, as a backbone of detectron2: image (N, 3, H, W) to `res2`..`res5`."""

    def __init__(self, net: OurBackbone):
        super().__init__()
        self.net = net
        self._out_features = list(STAGES)
        self._out_feature_channels = dict(zip(STAGES, net.channels, strict=True))
        self._out_feature_strides = {stage: 4 * 2**i for i, stage in enumerate(STAGES)}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return dict(zip(STAGES, self.net(image), strict=True))


class LinearP6P7(LastLevelP6P7):
    """P6 of C5 (N, C, H, W), and P7 of P6, by strided convolutions alone, as in MMDetection's RetinaNet.

    Source: mmdet/models/necks/fpn.py 3.3.0, `add_extra_convs='on_input'`, `relu_before_extra_convs=False`.
    """

    def forward(self, c5: Tensor) -> list[Tensor]:
        p6 = self.p6(c5)
        return [p6, self.p7(p6)]


@BACKBONE_REGISTRY.register()
def build_bcd_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The pyramids that detectron2 gives its ResNets (modeling/backbone/fpn.py), above these or one of our backbones,
    and up to the level that the configuration uses."""
    dense = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    levels = (cfg.MODEL.RETINANET if dense else cfg.MODEL.RPN).IN_FEATURES
    bottom_up = _own_backbone(cfg) if cfg.MODEL.OWN_BACKBONE.USED else build_resnet_backbone(cfg, input_shape)
    channels, top = cfg.MODEL.FPN.OUT_CHANNELS, None
    if levels[-1] != "p5":
        entering = bottom_up.output_shape()["res5"].channels
        strided = LinearP6P7 if cfg.MODEL.P7_WITHOUT_RELU else LastLevelP6P7
        top = strided(entering, channels) if dense else LastLevelMaxPool()
    return FPN(bottom_up, cfg.MODEL.FPN.IN_FEATURES, channels, cfg.MODEL.FPN.NORM, top, cfg.MODEL.FPN.FUSE_TYPE)


def _own_backbone(cfg: CfgNode) -> OwnBackbone:
    own = cfg.MODEL.OWN_BACKBONE
    net = build_backbone(own.NAME, output_stride=32, widths=own.WIDTHS, depths=own.DEPTHS)
    if cfg.MODEL.RESNETS.NORM != "FrozenBN":
        return OwnBackbone(net)
    # detectron2's own freezing would drop the activation that timm keeps inside its BatchNorm.
    from timm.layers import freeze_batch_norm_2d

    channels, frozen = net.channels, freeze_batch_norm_2d(net)
    frozen.channels = channels
    return OwnBackbone(frozen)


def taps(levels: list[str]) -> dict[str, str]:
    """Tap names to module paths of a detector, with these levels of the pyramid."""
    stages = {f"stage{i}": f"model.backbone.bottom_up:{stage}" for i, stage in enumerate(STAGES, 1)}
    pyramid = {level: f"model.backbone:{level}" for level in levels}
    return stages | pyramid | {"neck": pyramid[levels[0]], "logits": "logits"}


def instances(sizes: Sizes, targets: list[Targets]) -> list[Instances]:
    """Targets in detectron2's terms."""
    truth = []
    for size, target in zip(sizes, targets, strict=True):
        fields = {"gt_boxes": Boxes(target.boxes), "gt_classes": target.classes}
        if target.masks is not None:
            fields["gt_masks"] = BitMasks(target.masks)
        truth.append(Instances(size, **fields))
    return truth


def detections(results: list[Instances], originals: Sizes) -> list[Detections]:
    """Results on resized images, in the pixels of the original ones."""
    found = []
    for result, (height, width) in zip(results, originals, strict=True):
        result = detector_postprocess(result, height, width)
        masks = result.pred_masks.to(torch.uint8) if result.has("pred_masks") else None
        found.append(Detections(result.pred_boxes.tensor.float(), result.scores.float(), result.pred_classes, masks))
    return found
