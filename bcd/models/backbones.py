"""Backbones: timm feature pyramids with four stages, dilated the way the segmentation literature does it.

Every backbone maps an image `(N, 3, H, W)` to a list of four contiguous maps `stage1..stage4`. At output stride 8
their strides are 2, 4, 8, 8 for `light` and 4, 8, 8, 8 for the others that can be dilated. At output stride 32 nothing
is dilated, and all have 4, 8, 16, 32, as HRNet, MiT, Swin and what `bcd.models.timm_pyramid` makes always do.
"""

from collections.abc import Callable, Sequence
from typing import cast

from torch import nn

from bcd.config.architectures import LITES
from bcd.models.hrnet import HRNETS, HRNet
from bcd.models.layers import Backbone, timm_backbone
from bcd.models.light import LightBackbone
from bcd.models.mit import MIT, mix_transformer
from bcd.models.swin import SWINS, Swin
from bcd.models.timm_pyramid import TimmPyramid

# The papers' ResNets are "V1c": three 3x3 convolutions in place of the 7x7 stem, plain 1x1 shortcuts. timm
# builds it from these options but has no name and no weights for it.
V1C_STEM: dict[str, str | int] = {"stem_type": "deep", "stem_width": 32}

# Our name (and timm's, but for the `b`) -> extra options. The `d` variants, with average-pooled shortcuts, are the
# deep-stem ResNets that timm has weights for. OpenMMLab calls those with the original 7x7 stem "V1b".
TIMM: dict[str, dict[str, str | int]] = {
    "resnet18": V1C_STEM,
    "resnet34": V1C_STEM,
    "resnet50": V1C_STEM,
    "resnet101": V1C_STEM,
    "resnet18b": {},
    "resnet34b": {},
    "resnet50b": {},
    "resnet101b": {},
    "resnet18d": {},
    "resnet34d": {},
    "resnet50d": {},
    "resnet101d": {},
    "mobilenetv2_100": {},
    **dict.fromkeys(LITES, {}),
}
OUT_INDICES = (1, 2, 3, 4)
# Name -> builder of those that are never dilated.
PYRAMIDS: dict[str, Callable[[str], Backbone]] = {
    **dict.fromkeys(HRNETS, HRNet),
    **dict.fromkeys(MIT, mix_transformer),
    **dict.fromkeys(SWINS, Swin),
}


def build_backbone(
    name: str,
    *,
    output_stride: int = 8,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    deep_stem: bool = True,
) -> Backbone:
    """Build a randomly initialised backbone.

    `bcd.config.schema.models.Model` says what goes together, and checks it.
    `widths` and `depths` (channels and residual blocks per stage) belong to `light` alone.
    Without `deep_stem` the ResNets that are not `d` variants have their original 7x7 stem, as in the papers' detectors.
    """
    if name == "light":
        assert widths is not None and depths is not None
        return _light(widths, depths, output_stride)
    if name in PYRAMIDS:
        return PYRAMIDS[name](name)
    if name not in TIMM:
        return TimmPyramid(name)
    options = TIMM[name] if deep_stem else {}
    net = timm_backbone(timm_name(name), out_indices=OUT_INDICES, output_stride=output_stride, **options)
    if name.startswith("mobilenetv2"):
        _dilate_first_blocks(net)
    elif name.startswith("resnet") and not name.endswith("d"):
        _undilate_second_convs(net)
    return net


def timm_name(backbone: str) -> str:
    """What timm calls a backbone of `TIMM`."""
    return backbone.removesuffix("b") if backbone.startswith("resnet") else backbone


def _light(widths: Sequence[int], depths: Sequence[int], output_stride: int) -> LightBackbone:
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
        children = dict(block.named_children())
        if isinstance(conv := children.get("conv2"), nn.Conv2d) and "conv3" not in children:
            _set_dilation(conv, 1)


def _dilate_first_blocks(net: nn.Module) -> None:
    """Dilate only the first block of each MobileNetV2 stage; timm dilates all, the first by half.

    OpenMMLab's MobileNetV2-D8 is behind the published DeepLabV3+ students. It has dilations 1, 1, 1, 2, 2, 4, 4 in
    the first blocks of its seven stages and 1 elsewhere.
    """
    for stage in cast("nn.Sequential", net.get_submodule("blocks")):
        convs = [cast("nn.Conv2d", block.get_submodule("conv_dw")) for block in cast("nn.Sequential", stage)]
        dilation = max(conv.dilation[0] for conv in convs)
        for index, conv in enumerate(convs):
            _set_dilation(conv, dilation if index == 0 else 1)
