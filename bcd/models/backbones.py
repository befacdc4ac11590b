"""Backbones: timm feature pyramids with four stages, dilated the way the segmentation literature does it.

Every backbone maps an image `(N, 3, H, W)` to a list of four contiguous maps `stage1..stage4`. Their strides
are 4, 8, 8, 8 for ResNet and MobileNetV2 at output stride 8, and 2, 4, 8, 8 for `light`; at output stride 32, where
nothing is dilated, all have 4, 8, 16, 32, as HRNet, MiT and Swin always do.
"""

import difflib
from collections.abc import Collection, Sequence

from torch import nn

from bcd.errors import UserError
from bcd.models.hrnet import HRNETS, HRNet
from bcd.models.light import LightBackbone
from bcd.models.mit import MIT, mix_transformer
from bcd.models.swin import SWINS, Swin

# The papers' ResNets are "V1c": three 3x3 convolutions in place of the 7x7 stem, plain 1x1 shortcuts. timm
# builds it from these options but has no name and no weights for it.
V1C_STEM = {"stem_type": "deep", "stem_width": 32}

# Our name (and timm's) -> extra options. The `d` variants, with average-pooled shortcuts, are the deep-stem
# ResNets that timm has weights for.
TIMM = {
    "resnet18": V1C_STEM,
    "resnet34": V1C_STEM,
    "resnet50": V1C_STEM,
    "resnet101": V1C_STEM,
    "resnet18d": {},
    "resnet34d": {},
    "resnet50d": {},
    "resnet101d": {},
    "mobilenetv2_100": {},
}
FEATURES = {"features_only": True, "out_indices": (1, 2, 3, 4)}
# Name -> builder of those that are never dilated.
PYRAMIDS = {**dict.fromkeys(HRNETS, HRNet), **dict.fromkeys(MIT, mix_transformer), **dict.fromkeys(SWINS, Swin)}
BACKBONES = ("light", *TIMM, *PYRAMIDS)
STRIDES = (8, 16, 32)


def build_backbone(
    name: str,
    *,
    output_stride: int = 8,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    deep_stem: bool = True,
) -> nn.Module:
    """Build a randomly initialised backbone; `.channels` holds the channels of its four maps.

    `widths` and `depths` (channels and residual blocks per stage) belong to `light` alone. Without `deep_stem` the
    ResNets that are not `d` variants have their original 7x7 stem, as in the papers' detectors.
    Raises UserError for an unknown name, an output stride that is not offered, or bad widths and depths.
    """
    require_known("backbone", name, BACKBONES)
    if output_stride not in STRIDES:
        raise UserError(f"model.output_stride is {output_stride}; choose one of {STRIDES}")
    if name == "light":
        return _light(widths, depths, output_stride)
    if widths is not None or depths is not None:
        raise UserError(f"model.widths and model.depths belong to 'light' only; remove them for '{name}'")
    if name in PYRAMIDS:
        if output_stride != 32:
            raise UserError(f"model.output_stride is {output_stride}; '{name}' has 32 only")
        return PYRAMIDS[name](name)
    # timm brings torchvision, which takes seconds to import; models without it should not wait.
    import timm

    options = TIMM[name] if deep_stem else {}
    net = timm.create_model(name, **FEATURES, output_stride=output_stride, **options)
    if name.startswith("mobilenetv2"):
        _dilate_first_blocks(net)
    elif not name.endswith("d"):
        _undilate_second_convs(net)
    net.channels = net.feature_info.channels()
    return net


def require_known(field: str, name: str, known: Collection[str]) -> None:
    """Raise UserError with the nearest spelling unless `name` is one of `known`; `field` is its key."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        choices = ", ".join(known)
        raise UserError(f"model.{field} '{name}' is not known; did you mean '{near}'? (choices: {choices})")


def _light(widths: Sequence[int] | None, depths: Sequence[int] | None, output_stride: int) -> nn.Module:
    for field, values in (("widths", widths), ("depths", depths)):
        if values is None or len(values) != 4 or min(values) < 1:
            raise UserError(f"model.{field} is {values}; 'light' needs four positive integers, one per stage")
    # As everywhere: what the last stage loses in stride it gains in dilation.
    last_stride, last_dilation = (1, 2) if output_stride == 8 else (2, 1)
    first_stride = 2 if output_stride == 32 else 1
    return LightBackbone(widths, depths, (first_stride, 2, 2, last_stride), (1, 1, 1, last_dilation))


def _set_dilation(conv: nn.Conv2d, dilation: int) -> None:
    conv.dilation = (dilation, dilation)
    conv.padding = tuple(dilation * (k - 1) // 2 for k in conv.kernel_size)


def _undilate_second_convs(net: nn.Module) -> None:
    """Leave dilation to the first 3x3 of a two-conv ResNet block; timm dilates the second as well.

    Bottlenecks need nothing: timm already halves the dilation of a stage's first block (OpenMMLab calls it
    `contract_dilation`) and their only 3x3 is the one that carries stride and dilation.
    """
    for block in net.modules():
        if hasattr(block, "conv2") and not hasattr(block, "conv3"):
            _set_dilation(block.conv2, 1)


def _dilate_first_blocks(net: nn.Module) -> None:
    """Dilate only the first block of each MobileNetV2 stage; timm dilates all, the first by half.

    OpenMMLab's MobileNetV2-D8, behind the published DeepLabV3+ students, has dilations 1, 1, 1, 2, 2, 4, 4 in
    the first blocks of its seven stages and 1 elsewhere.
    """
    for stage in net.blocks:
        dilation = max(block.conv_dw.dilation[0] for block in stage)
        for index, block in enumerate(stage):
            _set_dilation(block.conv_dw, dilation if index == 0 else 1)
