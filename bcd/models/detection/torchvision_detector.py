"""Detectors made of torchvision's parts: RetinaNet, FCOS, Faster R-CNN and Mask R-CNN over our backbones.

Sizes that are left out are those of torchvision's published `*_resnet50_fpn` models, and so are losses and thresholds,
except that

- batch norm is trained; theirs is frozen where the backbone is pretrained, for batches of two images,
- every head keeps the 100 (`max_detections`) best detections; their RetinaNet keeps 300,
- every head's detections have a score above 0.05 and overlap no better one of their class by more than 0.5; those of
  their FCOS have one above 0.2 and overlap by up to 0.6,
- images smaller than 512 x 512 have fewer proposals and sampled boxes, see `torchvision_heads.fit_numbers`.

Batches are resized, normalised and padded before they come here, so torchvision's own transform is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, paste_masks_in_image
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import clip_boxes_to_image

from bcd.config.schema.models import Detection, DetectionModel
from bcd.errors import UserError
from bcd.models.backbones import build_backbone
from bcd.models.detection import torchvision_heads as heads
from bcd.models.detection.detector import REGIONS, Detections, Detector, Regions, Sizes, Targets
from bcd.models.detection.pyramid import PyramidNetwork, pyramid_levels
from bcd.models.detection.regions import anchor_logits, best_anchors
from bcd.models.detection.torchvision_zoo import ROWS, torchvision_file
from bcd.models.frozen import freeze
from bcd.models.layers import Backbone
from bcd.models.pretrained import load_pretrained

# Masks drawn into their image at a time.
PASTED = 16
DENSE = {
    ("retinanet", None): heads.retinanet,
    ("retinanet", 2): heads.retinanet_v2,
    ("fcos", None): heads.fcos,
}


def build(model: DetectionModel, classes: int, names: Sequence[str] = ()) -> Detector:
    """Build the detector that `model` describes; float32, on the CPU, in training mode.

    A pyramid needs strides 4 to 32, so the backbone is not dilated, whatever `model.output_stride` says. ResNets have
    the 7x7 stem of the published detectors. Raises UserError naming the field for what is not offered.
    """
    version = model.detection.version
    dense = DENSE.get((model.head, version))
    levels = pyramid_levels(model.detection.levels, "dense" if dense else "rcnn")
    backbone = build_backbone(
        model.backbone, output_stride=32, widths=model.widths, depths=model.depths, deep_stem=False
    )
    scale = _anchor_scale(model.head, model.detection, levels)
    norm = model.detection.pyramid_norm is not None
    detector: DenseDetector | RCNNDetector
    if dense:
        head = dense(model.channels, classes, levels, scale, model.detection.convs or 4)
        head.detections_per_img = model.detection.max_detections
        detector = DenseDetector(backbone, model.channels, levels, head, norm=norm, of_stage=version == 2)
    else:
        rpn = heads.rpn(model.channels, levels, scale, convs=version or 1)
        roi_heads = _roi_heads(model, classes, levels, scale)
        roi_heads.detections_per_img = model.detection.max_detections
        detector = RCNNDetector(backbone, model.channels, levels, rpn, roi_heads, norm=norm or version == 2)
    detector.weights = load_pretrained(
        detector, model.backbone, model.pretrained, names, partial(torchvision_file, model), ROWS
    )
    if model.freeze is not None:
        freeze(detector, getattr(backbone, "net", backbone), model.freeze)
    return detector


def _roi_heads(model: DetectionModel, classes: int, levels: range, scale: float) -> RoIHeads:
    channels, convs, fc_channels = model.channels, model.detection.convs or 4, model.detection.fc_channels or 1024
    box, mask = heads.box_head, heads.mask_head
    if model.detection.version == 2:
        box, mask = heads.box_head_v2, heads.mask_head_v2
    masks = mask(channels, convs) if model.head == "mask_rcnn" else None
    return heads.roi_heads(channels, classes, levels, scale, fc_channels, box(channels, fc_channels), masks)


def _anchor_scale(head: str, detection: Detection, levels: range) -> float:
    scale, least = detection.anchor_scale or heads.ANCHOR_SCALE[head], 2 / 2 ** levels[0]
    if scale < least:
        raise UserError(
            f"model.detection.anchor_scale is {scale}; choose {least} or more, as anchors need two pixels at the "
            f"finest level, {levels[0]}"
        )
    return scale


class DenseDetector(PyramidNetwork):
    """RetinaNet or FCOS, see `bcd.models.detection.detector.Detector`; their classes are independent.

    A student can repeat its teacher's class scores only if both have the same anchors, number for number.
    """

    def __init__(
        self, backbone: Backbone, channels: int, levels: range, head: RetinaNet | FCOS, *, norm: bool, of_stage: bool
    ):
        super().__init__(backbone, channels, levels, "dense", norm=norm, of_stage=of_stage)
        self.head = head
        self.logits = nn.Identity()
        self.taps["logits"] = "logits"

    def forward(
        self, image: Tensor, sizes: Sizes, targets: list[Targets], regions: Regions | None = None
    ) -> dict[str, Tensor]:
        outputs, anchors, per_level = self._predict(image, sizes)
        if regions is not None:
            self.logits(anchor_logits(outputs["cls_logits"], regions))
        objects = [{"boxes": t.boxes, "labels": t.classes} for t in targets]
        further = (per_level,) if isinstance(self.head, FCOS) else ()
        return self.head.compute_loss(objects, outputs, anchors, *further)

    def propose(self, image: Tensor, sizes: Sizes) -> Regions:
        outputs, anchors, _ = self._predict(image, sizes)
        boxes, index = [], []
        for scores, deltas, own, size in zip(
            outputs["cls_logits"], outputs["bbox_regression"], anchors, sizes, strict=True
        ):
            best = best_anchors(scores.amax(1), (own[:, :2] + own[:, 2:]) / 2, size)
            boxes.append(clip_boxes_to_image(self._decode(deltas[best], own[best]), size))
            index.append(best)
        regions = Regions(boxes, index, anchors=outputs["cls_logits"].shape[1])
        self.logits(anchor_logits(outputs["cls_logits"], regions))
        return regions

    def detect(self, image: Tensor, sizes: Sizes, originals: Sizes) -> list[Detections]:
        outputs, anchors, per_level = self._predict(image, sizes)
        by_level = {name: list(x.split(per_level, dim=1)) for name, x in outputs.items()}
        found = self.head.postprocess_detections(by_level, [list(own.split(per_level)) for own in anchors], sizes)
        return [_at_original(*each) for each in zip(found, sizes, originals, strict=True)]

    def _predict(self, image: Tensor, sizes: Sizes) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
        """What the head says of each anchor, (N, A, ...) float32; each image's anchors (A, 4); how many per level."""
        maps = list(self.features(image).values())
        outputs = {name: x.float() for name, x in self.head.head(maps).items()}
        generator = self.head.anchor_generator
        per_cell = generator.num_anchors_per_location()
        per_level = [x.shape[2] * x.shape[3] * n for x, n in zip(maps, per_cell, strict=True)]
        return outputs, generator(ImageList(image, sizes), maps), per_level

    def _decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        coder = self.head.box_coder
        return coder.decode_single(deltas, anchors) if isinstance(coder, BoxCoder) else coder.decode(deltas, anchors)


class RCNNDetector(PyramidNetwork):
    """Faster or Mask R-CNN, see `bcd.models.detection.detector.Detector`."""

    def __init__(
        self,
        backbone: Backbone,
        channels: int,
        levels: range,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads,
        *,
        norm: bool,
    ):
        super().__init__(backbone, channels, levels, "rcnn", norm=norm)
        self.rpn, self.roi_heads = rpn, roi_heads
        self.logits = nn.Identity()
        self.taps["logits"] = "logits"

    def forward(
        self, image: Tensor, sizes: Sizes, targets: list[Targets], regions: Regions | None = None
    ) -> dict[str, Tensor]:
        objects = [{"boxes": t.boxes, "labels": t.classes + 1, "masks": t.masks} for t in targets]
        features = self.features(image)
        proposals, losses = self._propose(features, image, sizes, objects)
        _, further = self.roi_heads(features, proposals, sizes, objects)
        if regions is not None:
            self._classify(features, regions.boxes, sizes)
        return losses | further

    def propose(self, image: Tensor, sizes: Sizes) -> Regions:
        features = self.features(image)
        proposals, _ = self._propose(features, image, sizes)
        boxes = [each[:REGIONS] for each in proposals]
        self._classify(features, boxes, sizes)
        return Regions(boxes)

    def detect(self, image: Tensor, sizes: Sizes, originals: Sizes) -> list[Detections]:
        features = self.features(image)
        proposals, _ = self._propose(features, image, sizes)
        found, _ = self.roi_heads(features, proposals, sizes)
        found = [one | {"labels": one["labels"] - 1} for one in found]
        return [_at_original(*each) for each in zip(found, sizes, originals, strict=True)]

    def _propose(
        self, features: dict[str, Tensor], image: Tensor, sizes: Sizes, objects: list[dict] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        heads.fit_numbers(self.rpn, self.roi_heads, *image.shape[2:])
        return self.rpn(ImageList(image, sizes), features, objects)

    def _classify(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> None:
        pooled = self.roi_heads.box_roi_pool(features, boxes, sizes)
        scores, _ = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        self.logits(torch.cat([scores[:, 1:], scores[:, :1]], 1))


def _at_original(found: dict[str, Tensor], size: tuple[int, int], original: tuple[int, int]) -> Detections:
    boxes = clip_boxes_to_image(resize_boxes(found["boxes"], size, original), original)
    masks = None
    if "masks" in found:
        masks = torch.zeros(len(boxes), *original, dtype=torch.uint8, device=boxes.device)
        # A few at a time, as together the probabilities would take four bytes a pixel.
        parts = zip(masks.split(PASTED), found["masks"].split(PASTED), boxes.split(PASTED), strict=True)
        for part, probabilities, own in parts if len(boxes) else ():
            part.copy_(paste_masks_in_image(probabilities, own, original)[:, 0] > 0.5)
    return Detections(boxes, found["scores"], found["labels"], masks)
