"""Files of torchvision's published detectors: their names, classes and norms, for detectors of that engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchvision.models import detection as published

from bcd.config.schema.models import DetectionModel
from bcd.errors import UserError
from bcd.models.class_names import ClassRows
from bcd.models.detection.mmdetection_config import is_mmdetection, read_settings, trained
from bcd.models.weights import WeightsFile

BODY = "backbone.body."
# By head and `detection.version`.
BUILDERS: dict[tuple[str, int | None], Callable[..., Any]] = {
    ("retinanet", None): published.retinanet_resnet50_fpn,
    ("retinanet", 2): published.retinanet_resnet50_fpn_v2,
    ("fcos", None): published.fcos_resnet50_fpn,
    ("faster_rcnn", None): published.fasterrcnn_resnet50_fpn,
    ("faster_rcnn", 2): published.fasterrcnn_resnet50_fpn_v2,
    ("mask_rcnn", None): published.maskrcnn_resnet50_fpn,
    ("mask_rcnn", 2): published.maskrcnn_resnet50_fpn_v2,
}
DENSE_CLASSIFIER, BOX_CLASSIFIER = "head.classification_head.cls_logits.bias", "roi_heads.box_predictor.cls_score.bias"
ROWS = (
    ClassRows(r"classification_head\.cls_logits\.(weight|bias)"),
    ClassRows(r"box_predictor\.cls_score\.(weight|bias)", "first"),
    ClassRows(r"box_predictor\.bbox_pred\.(weight|bias)", "first", each=4),
    ClassRows(r"mask_predictor\.mask_fcn_logits\.(weight|bias)", "first"),
)
# torchvision sets the epsilon of the norms to 0 when it loads these (`overwrite_eps`); ours stays as it is.
EPSILON, WITHOUT_EPSILON = 1e-5, (("retinanet", None), ("faster_rcnn", None), ("mask_rcnn", None))
# Tensors that only files of the second version have: of region proposals, and of RetinaNet's norms.
SECOND = ("rpn.head.conv.1.0.weight", "head.classification_head.conv.0.1.weight")


def torchvision_file(model: DetectionModel, file: WeightsFile) -> WeightsFile:
    """The tensors of torchvision's `*_resnet50_fpn` and `*_resnet50_fpn_v2` in our names, and COCO's names of classes.

    Other files come back as they are; MMDetection's have heads for the engine detectron2, and a backbone. torchvision's
    own model reads the file, older names included. Raises UserError for a file of another detector than `model`, and
    where the model's anchors are not the published ones.
    """
    state = file.state
    if is_mmdetection(state):
        return _of_mmdetection(model, file)
    if not any(key.startswith(BODY) for key in state):
        return file
    anchors_are_published(model)
    _require_version(model, state)
    kind = (model.head, model.detection.version)
    dense = DENSE_CLASSIFIER in state
    rows = state.get(DENSE_CLASSIFIER if dense else BOX_CLASSIFIER)
    classes = (len(rows) // (9 if model.head == "retinanet" else 1)) if rows is not None else 0
    with torch.device("meta"):
        net = BUILDERS[kind](weights=None, weights_backbone=None, num_classes=max(2, classes))
    try:
        net.load_state_dict(dict(state), assign=True)
    except RuntimeError as error:
        first = " ".join(str(error).split(": ", 1)[-1].split(",")[0].split())
        raise UserError(
            f"weights file {model.pretrained} is of another detector than torchvision's {model.head} over resnet50 "
            f"({first}); name a file of that, or correct model.head"
        ) from None
    shift = EPSILON if kind in WITHOUT_EPSILON else 0.0
    found = {
        _our_name(key): tensor - shift if key.startswith(BODY) and key.endswith("running_var") else tensor
        for key, tensor in net.state_dict().items()
        if not tensor.is_meta
    }
    return WeightsFile(found, _categories(classes, background=not dense))


def _require_version(model: DetectionModel, state: Mapping[str, Tensor]) -> None:
    second = any(key in state for key in SECOND)
    if second != (model.detection.version == 2):
        found, remedy = ("second", "set it to 2") if second else ("first", "remove it")
        raise UserError(
            f"model.detection.version: weights file {model.pretrained} is of torchvision's {found} version of a "
            f"detector; {remedy}, or name another file"
        )


def _of_mmdetection(model: DetectionModel, file: WeightsFile) -> WeightsFile:
    """A detector of MMDetection, of which this engine takes the backbone; UserError where that is none of its own."""
    if not trained(read_settings(file.config), caffe=False).torchvision:
        raise UserError(
            f"weights file {model.pretrained} is of a detector of MMDetection with other strides or images than "
            "torchvision's ResNets; set detection.engine: detectron2"
        )
    return replace(file, engine="detectron2")


def anchors_are_published(model: DetectionModel) -> None:
    """Raise UserError where a model has its own anchors, which whole published detectors were not trained on."""
    if own := next(
        (field for field in ("anchor_scale", "levels") if getattr(model.detection, field) is not None), None
    ):
        raise UserError(
            f"model.detection.{own}: the published detector {model.pretrained} has anchors of its own, which differ; "
            f"remove {own}, or start from weights of a backbone"
        )


def _our_name(key: str) -> str:
    for theirs, ours in ((BODY, "backbone."), ("backbone.fpn.", "pyramid."), ("head.", "head.head.")):
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def _categories(classes: int, *, background: bool) -> tuple[str, ...]:
    """The classes of the published files, numbered as they are; an R-CNN's first row is the background."""
    names = coco_categories()
    return names[background:] if classes == len(names) else ()


def coco_categories() -> tuple[str, ...]:
    """COCO's 91 categories as torchvision numbers them: the background, and gaps called N/A."""
    return tuple(published.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
