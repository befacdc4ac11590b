"""Detectors of detectron2, made from its own configurations: RetinaNet, Faster R-CNN and Mask R-CNN with a pyramid.

Nothing here imports detectron2 before `build` has seen that it is installed; what surrounds its models is in
`bcd.models.detection.detectron2_modules`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bcd.config.schema.models import Detection, DetectionModel
from bcd.config.zoo import ZOO
from bcd.errors import UserError, nearest
from bcd.files import sha256_file
from bcd.models.class_names import by_name
from bcd.models.detection.detectron2_zoo import PYRAMID, ROWS, anchors, without_anchors, zoo_file
from bcd.models.detection.mmdetection_config import is_mmdetection
from bcd.models.detection.mmdetection_zoo import mmdetection_file
from bcd.models.detection.torchvision_zoo import anchors_are_published
from bcd.models.frozen import freeze
from bcd.models.hub import weights_path
from bcd.models.pretrained import index_weights, sha256_tensors, timm_weights
from bcd.models.weights import CLASSIFIERS, InitialWeights, load_state, read_weights

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from bcd.models.detection.detector import Detector

# What its model zoo publishes at ResNet-50; another backbone changes only the keys set in `_set_backbone`.
HEADS = {
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "faster_rcnn": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "mask_rcnn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
}
DEPTHS = {"resnet18": 18, "resnet50": 50, "resnet101": 101}
# The backbones that detectron2 lacks are ours.
OWN = ("light", "mobilenetv2_100")
BACKBONES = (*DEPTHS, *OWN)
# The published anchors, in strides: a side of 32 at P3, with two more within the octave, and one of 32 at P2.
DENSE_ANCHOR_SCALE, REGION_ANCHOR_SCALE = 4.0, 8.0

# A running mean of our own, which starts where detectron2's does.
OWN_BUFFER = "normaliser"
# Prefix of the backbone below the pyramid, in the state dict of `build`'s result.
_BACKBONE = "model.backbone.bottom_up."


def build(model: DetectionModel, classes: int, names: Sequence[str] = ()) -> Detector:
    """The detector that `model` describes, detectron2's own model inside as `.model`.

    With `pretrained: none` BatchNorm is trained and nothing is frozen. With `timm`, or a file, all of the backbone's
    BatchNorm is frozen, as are the stem and the first stage of a ResNet: detectron2's defaults for weights of ImageNet.

    Raises UserError where detectron2 is not installed, and for a field that it cannot follow. It does so, too, for
    weights that are unavailable or leave part of the backbone uninitialised.
    """
    require_detectron2()
    from detectron2.modeling import build_model

    from bcd.models.detection.detectron2_modules import DenseDetector, RegionDetector

    net = build_model(config(model, classes))
    detector: DenseDetector | RegionDetector
    if model.head == "retinanet":
        detector = DenseDetector(net)
    else:
        _pool_by_anchors(net.roi_heads, model.detection)
        detector = RegionDetector(net)
    detector.weights = _load_pretrained(detector, model, names)
    if model.freeze is not None:
        bottom_up = net.backbone.bottom_up
        freeze(detector, getattr(bottom_up, "net", bottom_up), model.freeze)
    return detector


def require_detectron2() -> None:
    """Raise UserError with the remedy unless detectron2 is there and what it imports is, too."""
    if find_spec("detectron2") is None:
        raise UserError(
            "model.detection.engine is 'detectron2', which is not installed; create the conda environment of "
            "environment.yml, or set engine: torchvision"
        )
    if find_spec("pkg_resources") is None:
        raise UserError(
            "detectron2 needs pkg_resources, which setuptools has no more since version 81; run "
            "`pip install 'setuptools<81'`"
        )


def config(model: DetectionModel, classes: int) -> CfgNode:
    """detectron2's configuration of `model`, from the published one; the inputs' normalisation in it is unused.

    With the defaults of `model.detection`, 256 channels and weights to start from, one thing differs from the
    published one: where a bottleneck has its stride. It is in the 3x3 convolution, as weights for RGB images have it,
    rather than in the 1x1 of the original BGR ones; `stride_in_1x1` has it there. `p7_without_relu` is not
    detectron2's own. Raises UserError as `build` does.
    """
    from detectron2 import model_zoo
    from detectron2.config import CfgNode

    from bcd.models.detection.detectron2_modules import build_bcd_fpn_backbone

    for field, name, known in (("head", model.head, HEADS), ("backbone", model.backbone, BACKBONES)):
        if name not in known:
            raise UserError(f"model.{field} '{name}' is not among those of detectron2{nearest(name, known)}")
    cfg = model_zoo.get_config(HEADS[model.head])
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = model.channels
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    own = {"USED": model.backbone in OWN, "NAME": model.backbone, "WIDTHS": model.widths, "DEPTHS": model.depths}
    cfg.MODEL.OWN_BACKBONE = CfgNode(own)
    cfg.MODEL.P7_WITHOUT_RELU = bool(model.detection.p7_without_relu)
    cfg.MODEL.BACKBONE.NAME = build_bcd_fpn_backbone.__name__
    _set_backbone(cfg, model)
    _set_detection(cfg, model.head, model.detection)
    return cfg


def _set_backbone(cfg: CfgNode, model: DetectionModel) -> None:
    trained = model.pretrained == "none"
    resnets = cfg.MODEL.RESNETS
    resnets.NORM = "BN" if trained else "FrozenBN"
    resnets.OUT_FEATURES = ["res2", "res3", "res4", "res5"]  # RetinaNet leaves res2 out, but it is a tap
    resnets.STRIDE_IN_1X1 = bool(model.detection.stride_in_1x1)
    if trained:
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
    if model.backbone in DEPTHS:
        resnets.DEPTH = DEPTHS[model.backbone]
        resnets.RES2_OUT_CHANNELS = 64 if resnets.DEPTH < 50 else 256


def _set_detection(cfg: CfgNode, head: str, detection: Detection) -> None:
    """Levels, anchors and widths."""
    from bcd.models.detection.pyramid import LAST_STAGE, pyramid_levels

    dense = head == "retinanet"
    levels = pyramid_levels(detection.levels, "dense" if dense else "rcnn")
    settings, stages = cfg.MODEL, [level for level in levels if level <= LAST_STAGE]
    settings.FPN.IN_FEATURES = [f"res{level}" for level in stages]
    settings.RETINANET.IN_FEATURES = settings.RPN.IN_FEATURES = [f"p{level}" for level in levels]
    settings.ROI_HEADS.IN_FEATURES = [f"p{level}" for level in stages]
    scale = detection.anchor_scale or (DENSE_ANCHOR_SCALE if dense else REGION_ANCHOR_SCALE)
    octave = [2 ** (i / 3) for i in range(3)] if dense else [1.0]
    settings.ANCHOR_GENERATOR.SIZES = [[scale * 2**level * x for x in octave] for level in levels]
    settings.RETINANET.NUM_CONVS = detection.convs or settings.RETINANET.NUM_CONVS
    settings.ROI_MASK_HEAD.NUM_CONV = detection.convs or settings.ROI_MASK_HEAD.NUM_CONV
    cfg.TEST.DETECTIONS_PER_IMAGE = detection.max_detections
    settings.ROI_BOX_HEAD.FC_DIM = detection.fc_channels or settings.ROI_BOX_HEAD.FC_DIM


def _pool_by_anchors(roi_heads: nn.Module, detection: Detection) -> None:
    """Pool a region from the level whose anchors have its size: 224 pixels at level 4, for the published anchors."""
    relative = (detection.anchor_scale or REGION_ANCHOR_SCALE) / REGION_ANCHOR_SCALE
    for name in ("box_pooler", "mask_pooler"):
        if hasattr(roi_heads, name):
            getattr(roi_heads, name).canonical_box_size *= relative


def _load_pretrained(detector: nn.Module, model: DetectionModel, names: Sequence[str]) -> InitialWeights:
    """Load what `model.pretrained` names."""
    if model.pretrained == "none":
        return InitialWeights()
    if model.pretrained == "timm":
        name, state = timm_weights(model.backbone)
        return _fitted(detector, model, f"timm:{name} tensors-sha256:{sha256_tensors(state)}", state)
    if model.pretrained == "index":
        return _fitted(detector, model, *index_weights(model.backbone))
    path = weights_path(model.pretrained)
    zoo = path.suffix == ZOO
    file = zoo_file(path) if zoo else read_weights(path)
    if is_mmdetection(file.state):
        file, zoo = mmdetection_file(model, file), True
    ours = by_name(file.state, ROWS, file.classes, names)
    source = f"file:{path.name} sha256:{sha256_file(path)}"
    if zoo and any(key.startswith(PYRAMID) for key in ours.state):
        _require_same_anchors(detector, ours.state, model)
        return replace(_fitted(detector, model, source, without_anchors(ours.state), whole=True), lacking=ours.lacking)
    return replace(_fitted(detector, model, source, ours.state), lacking=ours.lacking)


def _fitted(
    detector: nn.Module, model: DetectionModel, source: str, state: Mapping[str, Tensor], *, whole: bool = False
) -> InitialWeights:
    """Load `state`; UserError where it lacks part of the backbone, or, of a `whole` detector, more than classifiers."""
    report = load_state(detector, state, _naming(detector, state))
    unfilled = tuple(key for key in report.unfilled if key != OWN_BUFFER)
    fits = [key for key in unfilled if not CLASSIFIERS.search(key)]
    if whole and (fits or report.unexpected):
        first = f"lacks {fits[0]}" if fits else f"has {report.unexpected[0]}"
        raise UserError(
            f"{model.pretrained} is a detector of another architecture than {model.head} over {model.backbone}, as it "
            f"{first}; correct model.head, backbone and channels, or name another file"
        )
    lacking = [key for key in unfilled if key.startswith(_BACKBONE)]
    if lacking:
        raise UserError(
            f"the weights {model.pretrained} lack {len(lacking)} tensors of backbone '{model.backbone}', first "
            f"{lacking[0]}; name weights of this backbone in model.pretrained"
        )
    return InitialWeights(f"{source} ({report})", unfilled)


def _require_same_anchors(detector: nn.Module, state: Mapping[str, Tensor], model: DetectionModel) -> None:
    """Raise UserError where a published detector was trained on other anchors than the model has."""
    anchors_are_published(model)
    for theirs, ours in zip(anchors(state), anchors(dict(detector.named_buffers())), strict=False):
        if theirs.shape != ours.shape or not torch.allclose(theirs, ours, atol=1e-2):
            raise UserError(
                f"{model.pretrained} was trained on other anchors than model.detection asks for; name a file of "
                "detectron2's FPN baselines"
            )


def _naming(detector: nn.Module, state: Mapping[str, Tensor]) -> Callable[[str], str]:
    """The one of three namings in which most tensors are found: ours, detectron2's, torchvision's (and timm's)."""
    namings = (lambda key: key, lambda key: key.removeprefix("model."), torchvision_key)
    return max(namings, key=lambda naming: sum(naming(key) in state for key in detector.state_dict()))


def torchvision_key(key: str) -> str:
    """Rename a key of the detector's backbone to torchvision's and timm's, as detectron2's
    tools/convert-torchvision-to-d2.py does in the other direction; other keys stay as they are."""
    if not key.startswith(_BACKBONE):
        return key
    key = key.removeprefix(_BACKBONE).removeprefix("net.").removeprefix("stem.")
    key = re.sub(r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}", key)
    key = re.sub(r"conv(\d)\.norm", r"bn\1", key)
    return key.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
