"""State-dict keys of OpenMMLab's mmsegmentation, so that its checkpoints load into our models.

Covers the backbones of `bcd.models.backbones`, but `light` and EfficientNet-Lite, and the heads of `bcd.models.heads`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from bcd.models.heads import DeepLabV3PlusHead, ISAHead, MultiScaleFCNHead, PSPHead, SegFormerHead, UPerHead
from bcd.models.segmentor import Segmentor
from bcd.models.weights import LoadReport, load_state, read_state

# (our pattern, mmsegmentation's replacement); the first that matches a whole key wins, others stay as they are.
_Rules = tuple[tuple[str, str | Callable[[re.Match], str]], ...]

_POOLS = (r"head\.pools\.(\d)\.1\.(.*)", r"decode_head.psp_modules.\1.1.\2")
_HEADS: dict[type[nn.Module], _Rules] = {
    PSPHead: (_POOLS, (r"head\.neck\.(.*)", r"decode_head.bottleneck.\1")),
    DeepLabV3PlusHead: (
        (r"head\.aspp\.(\d)\.0\.(.*)", r"decode_head.aspp_modules.\1.depthwise_conv.\2"),
        (r"head\.aspp\.(\d)\.1\.(.*)", r"decode_head.aspp_modules.\1.pointwise_conv.\2"),
        (r"head\.aspp\.(\d)\.(.*)", r"decode_head.aspp_modules.\1.\2"),
        (r"head\.low_level\.(.*)", r"decode_head.c1_bottleneck.\1"),
        (r"head\.neck\.(\d)\.0\.(.*)", r"decode_head.sep_bottleneck.\1.depthwise_conv.\2"),
        (r"head\.neck\.(\d)\.1\.(.*)", r"decode_head.sep_bottleneck.\1.pointwise_conv.\2"),
    ),
    ISAHead: (
        (r"head\.reduce\.(.*)", r"decode_head.in_conv.\1"),
        (r"head\.far\.(\w+)\.(.*)", r"decode_head.global_relation.\1_project.\2"),
        (r"head\.near\.(\w+)\.(.*)", r"decode_head.local_relation.\1_project.\2"),
        (r"head\.neck\.(.*)", r"decode_head.out_conv.\1"),
    ),
    MultiScaleFCNHead: ((r"head\.neck\.(.*)", r"decode_head.convs.0.\1"),),
    UPerHead: (
        _POOLS,
        (r"head\.laterals\.(.*)", r"decode_head.lateral_convs.\1"),
        (r"head\.outputs\.(.*)", r"decode_head.fpn_convs.\1"),
        (r"head\.neck\.(.*)", r"decode_head.fpn_bottleneck.\1"),
    ),
    SegFormerHead: (
        (r"head\.laterals\.(.*)", r"decode_head.convs.\1"),
        (r"head\.neck\.(.*)", r"decode_head.fusion_conv.\1"),
    ),
}
_SEGMENTOR: _Rules = (
    (r"head\.classifier\.(.*)", r"decode_head.conv_seg.\1"),
    (r"head\.(.*)", r"decode_head.\1"),
    (r"aux\.neck\.(.*)", r"auxiliary_head.convs.0.\1"),
    (r"aux\.classifier\.(.*)", r"auxiliary_head.conv_seg.\1"),
)

_DEEP_STEM: _Rules = (
    (r"backbone\.conv1\.(\d.*)", r"backbone.stem.\1"),
    (r"backbone\.bn1\.(.*)", r"backbone.stem.7.\1"),
)
# The first stage of MobileNetV2 has no expansion, so its depthwise and projection convolutions come first.
_FIRST_STAGE = {"conv_dw": "0.conv", "bn1": "0.bn", "conv_pw": "1.conv", "bn2": "1.bn"}
_LATER_STAGES = {
    "conv_pw": "0.conv",
    "bn1": "0.bn",
    "conv_dw": "1.conv",
    "bn2": "1.bn",
    "conv_pwl": "2.conv",
    "bn3": "2.bn",
}


def _inverted_residual(match: re.Match) -> str:
    stage, block, layer, name = match.groups()
    layers = _FIRST_STAGE if stage == "0" else _LATER_STAGES
    return f"backbone.layer{int(stage) + 1}.{block}.conv.{layers[layer]}.{name}"


_MOBILENET: _Rules = (
    (r"backbone\.conv_stem\.(.*)", r"backbone.conv1.conv.\1"),
    (r"backbone\.bn1\.(.*)", r"backbone.conv1.bn.\1"),
    (r"backbone\.blocks\.(\d)\.(\d)\.(\w+)\.(\w+)", _inverted_residual),
)
_MIT_BLOCK = r"backbone\.stages_(\d)\.blocks\.(\d+)\."
_MIT: _Rules = (
    (r"backbone\.patch_embed\.proj\.(.*)", r"backbone.layers.0.0.projection.\1"),
    (r"backbone\.patch_embed\.norm\.(.*)", r"backbone.layers.0.0.norm.\1"),
    (r"backbone\.stages_(\d)\.downsample\.proj\.(.*)", r"backbone.layers.\1.0.projection.\2"),
    (r"backbone\.stages_(\d)\.downsample\.norm\.(.*)", r"backbone.layers.\1.0.norm.\2"),
    (r"backbone\.stages_(\d)\.norm\.(.*)", r"backbone.layers.\1.2.\2"),
    (_MIT_BLOCK + r"attn\.(?:q|kv)\.(.*)", r"backbone.layers.\1.1.\2.attn.attn.in_proj_\3"),
    (_MIT_BLOCK + r"attn\.proj\.(.*)", r"backbone.layers.\1.1.\2.attn.attn.out_proj.\3"),
    (_MIT_BLOCK + r"mlp\.fc1\.(.*)", r"backbone.layers.\1.1.\2.ffn.layers.0.\3"),
    (_MIT_BLOCK + r"mlp\.dwconv\.(.*)", r"backbone.layers.\1.1.\2.ffn.layers.1.\3"),
    (_MIT_BLOCK + r"mlp\.fc2\.(.*)", r"backbone.layers.\1.1.\2.ffn.layers.4.\3"),
    (_MIT_BLOCK + r"(.*)", r"backbone.layers.\1.1.\2.\3"),
)
_SWIN_BLOCK = r"backbone\.layers\.(\d)\.blocks\.(\d+)\."
_SWIN: _Rules = (
    (r"backbone\.patch_embed\.proj\.(.*)", r"backbone.patch_embed.projection.\1"),
    (r"backbone\.norms\.(\d)\.(.*)", r"backbone.norm\1.\2"),
    # timm merges patches at a stage's begin, OpenMMLab at the end of the one before.
    (r"backbone\.layers\.(\d)\.downsample\.(.*)", lambda m: f"backbone.stages.{int(m[1]) - 1}.downsample.{m[2]}"),
    (_SWIN_BLOCK + r"attn\.(.*)", r"backbone.stages.\1.blocks.\2.attn.w_msa.\3"),
    (_SWIN_BLOCK + r"mlp\.fc1\.(.*)", r"backbone.stages.\1.blocks.\2.ffn.layers.0.0.\3"),
    (_SWIN_BLOCK + r"mlp\.fc2\.(.*)", r"backbone.stages.\1.blocks.\2.ffn.layers.1.\3"),
    (_SWIN_BLOCK + r"(.*)", r"backbone.stages.\1.blocks.\2.\3"),
)


def _backbone_rules(backbone: nn.Module) -> _Rules:
    """The rules of a backbone, told by the layers that only its family has; a plain ResNet or HRNet needs none."""
    if hasattr(backbone, "conv_stem"):
        return _MOBILENET
    if hasattr(backbone, "stages_0"):
        return _MIT
    if hasattr(backbone, "norms"):
        return _SWIN
    return _DEEP_STEM if isinstance(getattr(backbone, "conv1", None), nn.Sequential) else ()


def openmmlab_naming(model: nn.Module) -> Callable[[str], str]:
    """The function from a state-dict key of `model`, a segmentor or detector, to OpenMMLab's key of the same tensor.

    A file's tensor may be laid out differently; see `our_layout`.
    """
    parts = dict(model.named_children())
    head = _HEADS.get(type(parts["head"]), ()) if "head" in parts else ()
    rules = [(re.compile(ours), theirs) for ours, theirs in (*_backbone_rules(parts["backbone"]), *head, *_SEGMENTOR)]

    def rename(key: str) -> str:
        for pattern, theirs in rules:
            if match := pattern.fullmatch(key):
                return theirs(match) if callable(theirs) else match.expand(theirs)
        return key

    return rename


def our_layout(key: str, tensor: Tensor) -> Tensor:
    """Of OpenMMLab's `tensor` the part, in the order, that our tensor `key` has; most are taken as they are.

    MiT: query, key and value are stacked, and linear layers are 1x1 convolutions. Swin: merged patches have the order
    (channel, row, column), timm's (column, row, channel).
    """
    if re.fullmatch(_MIT_BLOCK + r"attn\.(q|kv)\..*", key):
        query, rest = tensor[: len(tensor) // 3], tensor[len(tensor) // 3 :]
        return query if ".q." in key else rest
    if re.fullmatch(_MIT_BLOCK + r"mlp\.fc[12]\.weight", key):
        return tensor.flatten(1)
    if re.fullmatch(r"backbone\.layers\.\d\.downsample\..*", key) and tensor.shape[-1] % 4 == 0:
        return tensor.unflatten(-1, (-1, 2, 2)).transpose(-3, -1).flatten(-3)
    return tensor


def load_openmmlab(model: Segmentor, source: str | Path | Mapping[str, Tensor]) -> LoadReport:
    """Load an mmsegmentation checkpoint (path, or its state dict) into `model`; returns what did not match.

    Raises UserError where the file cannot be read. Mismatched tensors are left as they were.
    """
    state = source if isinstance(source, Mapping) else read_state(Path(source))
    return load_state(model, state, openmmlab_naming(model), our_layout)
