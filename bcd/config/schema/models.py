"""Models: a backbone, a head, and where the weights come from."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Len
from pydantic import (
    PositiveFloat,
    model_validator,
)

from bcd.config.architectures import BACKBONES, DETECTOR_HEADS, SEGMENTATION_HEADS, SOURCES
from bcd.config.index_weights import INDEX
from bcd.config.ranges import Count, Depth, Fraction, Width
from bcd.config.schema.base import Pixels, Strict
from bcd.errors import nearest

WEIGHT_FILES = (".safetensors", ".pth", ".pt")


class Model(Strict):
    """What segmentors and detectors share: a backbone and where its weights come from."""

    backbone: str
    """`light`, a small residual net, or a name of `bcd.config.architectures.BACKBONES`."""
    channels: Width
    """Width of the decode head, or of a detector's pyramid."""
    output_stride: Literal[8, 16, 32] = 8
    """Stride of the backbone's last stage; what a backbone offers stands in `BACKBONES`."""
    widths: Annotated[list[Width], Len(4, 4)] | None = None
    """Channels of the four stages, of `light` only."""
    depths: Annotated[list[Depth], Len(4, 4)] | None = None
    """Residual blocks of the four stages, of `light` only."""
    pretrained: str = "none"
    """`none`, `timm`, `index` or the path of a .safetensors or .pth file; a run's record says what was used."""
    freeze: str | None = None
    """A module of the backbone, such as `blocks.2`: it and all before it stay as loaded, statistics too."""

    @model_validator(mode="after")
    def _backbone_fits(self) -> Model:
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone: '{self.backbone}' is not known{nearest(self.backbone, BACKBONES)}")
        if self.output_stride not in BACKBONES[self.backbone]:
            offered = " or ".join(map(str, BACKBONES[self.backbone]))
            raise ValueError(f"output_stride: '{self.backbone}' has {offered}, not {self.output_stride}; write it")
        if self.pretrained not in SOURCES and not self.pretrained.endswith(WEIGHT_FILES):
            raise ValueError(f"pretrained: '{self.pretrained}' is none of {SOURCES} and no file {WEIGHT_FILES}")
        if self.pretrained == "timm" and self.backbone == "light":
            raise ValueError("pretrained: timm has no weights of 'light'; set pretrained: none, or name a file")
        if self.pretrained == "index" and self.backbone not in INDEX:
            raise ValueError(
                f"pretrained: the package index has weights of {', '.join(INDEX)}, not of '{self.backbone}'; set "
                "pretrained: timm, or name a file"
            )
        if self.freeze is not None and self.pretrained == "none":
            raise ValueError("freeze: random weights would stay as they are; name what `pretrained` starts from")
        for field in ("widths", "depths"):
            if self.backbone == "light" and getattr(self, field) is None:
                raise ValueError(f"{field}: 'light' needs four positive integers, one per stage")
            if self.backbone != "light" and getattr(self, field) is not None:
                raise ValueError(f"{field}: only 'light' has them; remove them for '{self.backbone}'")
        return self


class SegmentationModel(Model):
    """A model for semantic segmentation."""

    head: Literal[SEGMENTATION_HEADS]  # type: ignore[valid-type]
    """The decode head."""
    aux_channels: Width | None = None
    """Width of the auxiliary head, which only training has; null for none."""
    dropout: Fraction = 0.1
    """Share of channels that are dropped before a classifier."""


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


class DetectionModel(Model):
    """A detector: a backbone, a feature pyramid and the heads of an engine."""

    head: Literal[DETECTOR_HEADS]  # type: ignore[valid-type]
    """The kind of detector."""
    detection: Detection
    """The pyramid and the heads."""

    @model_validator(mode="after")
    def _head_fits(self) -> DetectionModel:
        for field, without in (("fc_channels", ("retinanet", "fcos")), ("convs", ("faster_rcnn",))):
            if self.head in without and getattr(self.detection, field) is not None:
                raise ValueError(f"detection.{field}: means nothing to '{self.head}'; remove it")
        if self.detection.pyramid_norm and self.detection.engine == "detectron2":
            raise ValueError("detection.pyramid_norm: only the engine torchvision has it; remove it for detectron2")
        return self


AnyModel = SegmentationModel | DetectionModel
