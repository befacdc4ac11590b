"""State-dict keys of OpenMMLab's mmsegmentation, so that its checkpoints load into our models.

Covers PSPNet and DeepLabV3+ on ResNet V1c and MobileNetV2, with the FCN auxiliary head.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from bcd.models.segmentor import Segmentor
from bcd.models.weights import LoadReport, load_state, read_state

# (our pattern, mmsegmentation's replacement); the first that matches a whole key wins, others stay as they
# are.
_RULES = (
    (r"backbone\.conv1\.(\d.*)", r"backbone.stem.\1"),
    (r"backbone\.bn1\.(.*)", r"backbone.stem.7.\1"),
    (r"head\.pools\.(\d)\.1\.(.*)", r"decode_head.psp_modules.\1.1.\2"),
    (r"head\.image_pool\.(.*)", r"decode_head.image_pool.\1"),
    (r"head\.aspp\.(\d)\.0\.(.*)", r"decode_head.aspp_modules.\1.depthwise_conv.\2"),
    (r"head\.aspp\.(\d)\.1\.(.*)", r"decode_head.aspp_modules.\1.pointwise_conv.\2"),
    (r"head\.aspp\.(\d)\.(.*)", r"decode_head.aspp_modules.\1.\2"),
    (r"head\.low_level\.(.*)", r"decode_head.c1_bottleneck.\1"),
    (r"head\.neck\.(\d)\.0\.(.*)", r"decode_head.sep_bottleneck.\1.depthwise_conv.\2"),
    (r"head\.neck\.(\d)\.1\.(.*)", r"decode_head.sep_bottleneck.\1.pointwise_conv.\2"),
    (r"head\.neck\.(.*)", r"decode_head.bottleneck.\1"),
    (r"head\.bottleneck\.(.*)", r"decode_head.bottleneck.\1"),
    (r"head\.classifier\.(.*)", r"decode_head.conv_seg.\1"),
    (r"aux\.neck\.(.*)", r"auxiliary_head.convs.0.\1"),
    (r"aux\.classifier\.(.*)", r"auxiliary_head.conv_seg.\1"),
)

# MobileNetV2: the first stage has no expansion, so its depthwise and projection convolutions come first.
_FIRST_STAGE = {"conv_dw": "0.conv", "bn1": "0.bn", "conv_pw": "1.conv", "bn2": "1.bn"}
_LATER_STAGES = {
    "conv_pw": "0.conv",
    "bn1": "0.bn",
    "conv_dw": "1.conv",
    "bn2": "1.bn",
    "conv_pwl": "2.conv",
    "bn3": "2.bn",
}


def openmmlab_key(key: str, *, mobilenet: bool = False) -> str:
    """Rename one of our state-dict keys to mmsegmentation's; `mobilenet` says which backbone it is."""
    if mobilenet and key.startswith("backbone."):
        return _mobilenet_key(key)
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    return key


def _mobilenet_key(key: str) -> str:
    match = re.fullmatch(r"backbone\.blocks\.(\d)\.(\d)\.(\w+)\.(\w+)", key)
    if not match:
        return key.replace("conv_stem.", "conv1.conv.").replace("bn1.", "conv1.bn.")
    stage, block, layer, name = match.groups()
    layers = _FIRST_STAGE if stage == "0" else _LATER_STAGES
    return f"backbone.layer{int(stage) + 1}.{block}.conv.{layers[layer]}.{name}"


def is_mobilenet(model: Segmentor) -> bool:
    """Whether the backbone is timm's MobileNetV2, whose keys need their own renaming."""
    return hasattr(model.backbone, "conv_stem")


def load_openmmlab(model: Segmentor, source: str | Path | Mapping[str, Tensor]) -> LoadReport:
    """Load an mmsegmentation checkpoint (path, or its state dict) into `model`; returns what did not match.

    Raises UserError where the file cannot be read. Mismatched tensors are left as they were.
    """
    state = source if isinstance(source, Mapping) else read_state(Path(source))
    mobilenet = is_mobilenet(model)
    return load_state(model, state, lambda key: openmmlab_key(key, mobilenet=mobilenet))
