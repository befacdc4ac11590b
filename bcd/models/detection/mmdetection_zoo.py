"""Files of MMDetection (`.pth`): RetinaNet, Faster and Mask R-CNN over R-50 and R-101 FPN, for detectron2's models."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from bcd.config.schema.models import DetectionModel
from bcd.config.zoo import MEAN
from bcd.errors import UserError
from bcd.models.detection.detectron2_zoo import STEM, for_rgb
from bcd.models.detection.mmdetection_config import Trained, read_settings, trained, unlike
from bcd.models.weights import WeightsFile

# Of RetinaNet, whose anchors have 3 ratios and 3 scales at a location.
DENSE = ("head.cls_score.", "head.bbox_pred.")
RATIOS = SCALES = 3
# The coarsest level that a stage of the backbone enters.
TOP = 5
_BLOCK = r"backbone\.layer(\d)\.(\d+)\."
# (their pattern, detectron2's name); the level of a pyramid's first convolution is put before the groups.
_Rules = tuple[tuple[str, str | Callable[[int, re.Match], str]], ...]
_RULES: _Rules = (
    (r"backbone\.conv1\.weight", STEM),
    (r"backbone\.bn1\.(\w+)", r"backbone.bottom_up.stem.conv1.norm.\1"),
    (_BLOCK + r"conv(\d)\.weight", lambda _, m: f"{_block(m)}.conv{m[3]}.weight"),
    (_BLOCK + r"bn(\d)\.(\w+)", lambda _, m: f"{_block(m)}.conv{m[3]}.norm.{m[4]}"),
    (_BLOCK + r"downsample\.0\.weight", lambda _, m: f"{_block(m)}.shortcut.weight"),
    (_BLOCK + r"downsample\.1\.(\w+)", lambda _, m: f"{_block(m)}.shortcut.norm.{m[3]}"),
    (r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", lambda first, m: f"backbone.fpn_lateral{first + int(m[1])}.{m[2]}"),
    (r"neck\.fpn_convs\.(\d)\.conv\.(\w+)", lambda first, m: f"backbone.{_output(first + int(m[1]))}.{m[2]}"),
    # The layers of a tower alternate with activations.
    (r"bbox_head\.cls_convs\.(\d)\.conv\.(\w+)", lambda _, m: f"head.cls_subnet.{2 * int(m[1])}.{m[2]}"),
    (r"bbox_head\.reg_convs\.(\d)\.conv\.(\w+)", lambda _, m: f"head.bbox_subnet.{2 * int(m[1])}.{m[2]}"),
    (r"bbox_head\.retina_cls\.(\w+)", r"head.cls_score.\1"),
    (r"bbox_head\.retina_reg\.(\w+)", r"head.bbox_pred.\1"),
    (r"rpn_head\.rpn_conv\.(\w+)", r"proposal_generator.rpn_head.conv.\1"),
    (r"rpn_head\.rpn_cls\.(\w+)", r"proposal_generator.rpn_head.objectness_logits.\1"),
    (r"rpn_head\.rpn_reg\.(\w+)", r"proposal_generator.rpn_head.anchor_deltas.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.(\d)\.(\w+)", lambda _, m: f"roi_heads.box_head.fc{int(m[1]) + 1}.{m[2]}"),
    (r"roi_head\.bbox_head\.fc_cls\.(\w+)", r"roi_heads.box_predictor.cls_score.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(\w+)", r"roi_heads.box_predictor.bbox_pred.\1"),
    (
        r"roi_head\.mask_head\.convs\.(\d)\.conv\.(\w+)",
        lambda _, m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}.{m[2]}",
    ),
    (r"roi_head\.mask_head\.upsample\.(\w+)", r"roi_heads.mask_head.deconv.\1"),
    (r"roi_head\.mask_head\.conv_logits\.(\w+)", r"roi_heads.mask_head.predictor.\1"),
)


def mmdetection_file(model: DetectionModel, file: WeightsFile) -> WeightsFile:
    """The tensors of a detector of MMDetection in detectron2's names, for RGB images normalised by MEAN and STD.

    Norms need nothing: both have the epsilon 1e-5. The background is the last row of an R-CNN's classifier in both.
    What is rearranged are the stem, and RetinaNet's anchors. Raises UserError for an architecture that detectron2's
    RetinaNet, Faster and Mask R-CNN do not have, and where `model.detection` is not as the file was trained.
    """
    convs = {key.split(".")[2] for key in file.state if key.startswith("neck.lateral_convs.")}
    names = {
        key: detectron2_name(key, TOP + 1 - len(convs)) for key in file.state if not key.endswith("num_batches_tracked")
    }
    if other := next((key for key, name in names.items() if not name), None):
        raise UserError(
            f"weights file {model.pretrained} is of another detector than MMDetection's R-50 and R-101 FPN RetinaNet, "
            f"Faster and Mask R-CNN, as it has {other}; name a file of those"
        )
    settings = read_settings(file.config)
    known = trained(settings, caffe=bool(model.detection.stride_in_1x1))
    _require_same(model, known, unlike(settings, dense=model.head == "retinanet"))
    state = {name: _size_major(name, file.state[key]) for key, name in names.items()}
    return replace(file, state=for_rgb(state, model.pretrained, bgr=known.bgr, std=known.std))


def _require_same(model: DetectionModel, known: Trained, other: str) -> None:
    """Raise UserError where the file was trained otherwise than the model is built, of which `other` is one thing."""
    file = f"weights file {model.pretrained}"
    if not known.mean_is_ours:
        raise UserError(
            f"{file} was trained on images of mean {list(known.mean)} and std {list(known.std)} (red, green, blue), "
            f"not of mean {list(MEAN)}; name a file that was"
        )
    linear = model.head == "retinanet" and not known.p7_relu
    for field, theirs, without, having in (
        ("stride_in_1x1", known.caffe, "is of a ResNet of style pytorch", "is of a ResNet of style caffe"),
        ("p7_without_relu", linear, "has a ReLU between P6 and P7", "has no ReLU between P6 and P7"),
    ):
        if theirs != bool(getattr(model.detection, field)):
            found, remedy = (having, "set it to true") if theirs else (without, "remove it")
            raise UserError(f"detection.{field}: {file} {found}; {remedy}")
    if other:
        raise UserError(
            f"{file} was trained with {other}; name a file of MMDetection's published {model.head} over R-50 or R-101"
        )


def _size_major(name: str, tensor: Tensor) -> Tensor:
    """A dense classifier's rows with the anchors of a location in detectron2's order.

    MMDetection counts the scales of one ratio after the other, detectron2 the ratios of one size (its
    modeling/anchor_generator.py, `generate_cell_anchors`). A tensor of another number of anchors stays as it is.
    """
    if not name.startswith(DENSE) or len(tensor) % (RATIOS * SCALES):
        return tensor
    return tensor.unflatten(0, (RATIOS, SCALES, -1)).transpose(0, 1).flatten(0, 2)


def detectron2_name(key: str, first: int) -> str:
    """detectron2's name of MMDetection's `key`, whose pyramid begins with level `first`; '' where it has none."""
    for pattern, name in _RULES:
        if match := re.fullmatch(pattern, key):
            return name(first, match) if callable(name) else match.expand(name)
    return ""


def _block(match: re.Match) -> str:
    return f"backbone.bottom_up.res{int(match[1]) + 1}.{match[2]}"


def _output(level: int) -> str:
    return f"fpn_output{level}" if level <= TOP else f"top_block.p{level}"
