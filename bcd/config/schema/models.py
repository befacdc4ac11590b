"""Models: a backbone, a head, and where the weights come from."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import (
    Field,
    PositiveFloat,
    model_validator,
)

from bcd.config.architectures import BACKBONES, DETECTOR_HEADS, SEGMENTATION_HEADS, SOURCES, output_strides
from bcd.config.index_weights import INDEX
from bcd.config.ranges import Count, Depth, Fraction, Width
from bcd.config.schema.base import METRICS, Pixels, Strict
from bcd.config.zoo import HUB, ZOO, hub_file
from bcd.errors import nearest

ZOO_BACKBONES = ("resnet50", "resnet101")
WEIGHT_FILES = (".safetensors", ".pth", ".pt")


class PublishedScore(Strict):
    """What others measured of a model's weights: `bcd evaluate` prints it beside what is measured here."""

    dataset: str
    """The dataset of params/datasets.yaml that it was measured on."""
    split: str
    """The split of it."""
    metric: str
    """As the metrics of an evaluation are called: miou, ap, ap_mask, ..."""
    value: Annotated[float, Field(ge=0, le=100)]
    """In percent."""
    source: str
    """Where it is published: an address, or title and table."""
    tolerance: Annotated[float, Field(ge=0, le=100)] = 0.1
    """By how many percent points ours may differ: what rounding, other libraries and resizing do."""


class Model(Strict):
    """What segmentors and detectors share: a backbone and where its weights come from."""

    backbone: str
    """`light`, a small residual net, or one that `bcd.config.architectures.output_strides` knows: any of timm's."""
    channels: Width
    """Width of the decode head, or of a detector's pyramid."""
    output_stride: Literal[8, 16, 32] = 8
    """Stride of the backbone's last stage; what a backbone offers is known to `output_strides`."""
    widths: Annotated[list[Width], Len(4, 4)] | None = None
    """Channels of the four stages, of `light` only."""
    depths: Annotated[list[Depth], Len(4, 4)] | None = None
    """Residual blocks of the four stages, of `light` only."""
    pretrained: str = "none"
    """`none`, `timm`, `index`, the path of a .safetensors, .pth or .pkl file, or a pinned file of the hub
    (`hub:OWNER/NAME@REVISION/FILE#sha256=HASH`); a run's record says what was used."""
    published: list[PublishedScore] = Field(default=[], exclude=True)
    """What others measured of the weights that `pretrained` names; changes no result."""
    freeze: str | None = None
    """A module of the backbone, such as `blocks.2`: it and all before it stay as loaded, statistics too."""

    @property
    def weights_file(self) -> str:
        """The path that `pretrained` names, inside its repository if that is of the hub; else `pretrained` itself."""
        return hub_file(self.pretrained).path if self.pretrained.startswith(HUB) else self.pretrained

    @model_validator(mode="after")
    def _backbone_fits(self) -> Model:
        try:
            strides = output_strides(self.backbone)
        except ValueError as error:
            raise ValueError(f"backbone: {error}") from None
        if self.output_stride not in strides:
            offered = " or ".join(map(str, strides))
            raise ValueError(f"output_stride: '{self.backbone}' has {offered}, not {self.output_stride}; write it")
        if self.pretrained not in SOURCES and not self.weights_file.endswith((*WEIGHT_FILES, ZOO)):
            raise ValueError(f"pretrained: '{self.pretrained}' is none of {SOURCES} and no file {WEIGHT_FILES}")
        if self.pretrained == "timm" and self.backbone == "light":
            raise ValueError("pretrained: timm has no weights of 'light'; set pretrained: none, or name a file")
        if self.pretrained == "index" and self.backbone not in INDEX:
            raise ValueError(
                f"pretrained: the package index has weights of {', '.join(INDEX)}, not of '{self.backbone}'; set "
                "pretrained: timm, or name a file"
            )
        if self.published and self.pretrained in SOURCES:
            raise ValueError("published: it is of weights that are loaded whole; name their file in `pretrained`")
        if self.freeze is not None and self.pretrained == "none":
            raise ValueError("freeze: random weights would stay as they are; name what `pretrained` starts from")
        for field in ("widths", "depths"):
            if self.backbone == "light" and getattr(self, field) is None:
                raise ValueError(f"{field}: 'light' needs four positive integers, one per stage")
            if self.backbone != "light" and getattr(self, field) is not None:
                raise ValueError(f"{field}: only 'light' has them; remove them for '{self.backbone}'")
        return self

    def _require_metrics(self, known: Collection[str]) -> None:
        if wrong := next((score.metric for score in self.published if score.metric not in known), None):
            raise ValueError(f"published: '{wrong}' is no metric of such a model{nearest(wrong, known)}")


class SegmentationModel(Model):
    """A model for semantic segmentation."""

    head: Literal[SEGMENTATION_HEADS]  # type: ignore[valid-type]
    """The decode head."""
    aux_channels: Width | None = None
    """Width of the auxiliary head, which only training has; null for none."""
    dropout: Fraction = 0.1
    """Share of channels that are dropped before a classifier."""

    @model_validator(mode="after")
    def _file_fits(self) -> SegmentationModel:
        if self.weights_file.endswith(ZOO):
            raise ValueError(f"pretrained: '{self.pretrained}' is a file of detectron2's detectors; name another file")
        self._require_metrics(METRICS["semantic"])
        return self


class Detection(Strict):
    """What a detector has beside its backbone; the defaults are those of the engine's published models."""

    engine: Literal["torchvision", "detectron2"] = "torchvision"
    """The library that implements heads and losses."""
    levels: Pixels | None = None
    """The finest and the coarsest level of the pyramid; level l has stride 2^l."""
    pyramid_norm: Literal["batch"] | None = None
    """Batch norm behind each convolution of the pyramid; null for none. Engine torchvision only."""
    anchor_scale: PositiveFloat | None = None
    """Side of a level's smallest anchor, in strides."""
    convs: Depth | None = None
    """Convolutions of a dense head's towers, and of a mask head."""
    fc_channels: Width | None = None
    """Width of an R-CNN's box head."""
    max_detections: Count = 100
    """How many are kept of an image; COCO's metrics look at 100."""
    stride_in_1x1: Literal[True] | None = None
    """A bottleneck has its stride in its first 1x1 convolution, as in detectron2's .pkl files and in MMDetection's of
    style caffe; null for the 3x3 one."""
    p7_without_relu: Literal[True] | None = None
    """No ReLU stands between P6 and P7 of detectron2's RetinaNet, as in MMDetection's; null for one."""
    version: Literal[2] | None = None
    """2 for torchvision's `*_resnet50_fpn_v2`, with norms in the heads; null for the first. Engine torchvision only."""


class DetectionModel(Model):
    """A detector: a backbone, a feature pyramid and the heads of an engine."""

    head: Literal[DETECTOR_HEADS]  # type: ignore[valid-type]
    """The kind of detector."""
    detection: Detection = Detection()
    """The pyramid and the heads."""

    @property
    def of_zoo(self) -> bool:
        """Whether the weights can only be of detectron2's zoo or MMDetection's, and so for images of MEAN and STD."""
        pickled = self.weights_file.endswith((".pth", ".pt"))
        theirs = self.detection.stride_in_1x1 or self.detection.p7_without_relu
        return self.weights_file.endswith(ZOO) or (pickled and bool(theirs))

    @model_validator(mode="after")
    def _stem_fits(self) -> DetectionModel:
        if self.backbone in BACKBONES and re.fullmatch(r"resnet\d+b", self.backbone):
            raise ValueError(
                f"backbone: detectors have the 7x7 stem without a 'b'; write {self.backbone.removesuffix('b')}"
            )
        return self

    @model_validator(mode="after")
    def _head_fits(self) -> DetectionModel:
        for field, without in (("fc_channels", ("retinanet", "fcos")), ("convs", ("faster_rcnn",))):
            if self.head in without and getattr(self.detection, field) is not None:
                raise ValueError(f"detection.{field}: means nothing to '{self.head}'; remove it")
        if self.detection.pyramid_norm and self.detection.engine == "detectron2":
            raise ValueError("detection.pyramid_norm: only the engine torchvision has it; remove it for detectron2")
        if self.detection.version and (self.detection.engine == "detectron2" or self.head == "fcos"):
            raise ValueError("detection.version: torchvision has a second of RetinaNet and R-CNNs alone; remove it")
        self._require_metrics(METRICS["instance" if self.head == "mask_rcnn" else "detection"])
        return self

    @model_validator(mode="after")
    def _zoo_file_fits(self) -> DetectionModel:
        detection = self.detection
        zoo = self.weights_file.endswith(ZOO)
        if detection.stride_in_1x1 and (detection.engine != "detectron2" or self.backbone not in ZOO_BACKBONES):
            raise ValueError("detection.stride_in_1x1: only resnet50 and resnet101 of detectron2 have it; remove it")
        if detection.p7_without_relu and (detection.engine != "detectron2" or self.head != "retinanet"):
            raise ValueError("detection.p7_without_relu: only detectron2's retinanet has it; remove it")
        if not zoo:
            return self
        if detection.p7_without_relu:
            raise ValueError(f"detection.p7_without_relu: '{self.pretrained}' has a ReLU between P6 and P7; remove it")
        if detection.engine != "detectron2":
            raise ValueError(f"detection.engine: '{self.pretrained}' is of detectron2's zoo; set engine: detectron2")
        if self.backbone not in ZOO_BACKBONES:
            raise ValueError(f"backbone: '{self.pretrained}' can be of {' or '.join(ZOO_BACKBONES)}; name one of these")
        if not detection.stride_in_1x1:
            raise ValueError(
                f"detection.stride_in_1x1: '{self.pretrained}' is of ResNets with their strides there; set it to true"
            )
        return self


AnyModel = SegmentationModel | DetectionModel
