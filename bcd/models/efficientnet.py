"""State-dict keys of EfficientNets as efficientnet_pytorch and its kin name them, for networks of timm.

Sources: lukemelas/EfficientNet-PyTorch and ml-illustrated/EfficientNet-Lite-PyTorch for their names, which number all
blocks in turn; timm's `EfficientNet` for ours, which number them within a stage.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
# A block whose width does not grow inside has no expansion, so its norms count from the depthwise convolution.
_UNEXPANDED = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with timm's keys; keys of no known layer stay as they are.

    A stage begins where the width of the blocks' outputs changes, as it does from stage to stage in every EfficientNet
    of the default width and wider.
    """
    places = _places(state)

    def rename(key: str) -> str:
        if match := _BLOCK.fullmatch(key):
            number, layer, name = int(match[1]), match[2], match[3]
            layers = _EXPANDED if f"_blocks.{number}._expand_conv.weight" in state else _UNEXPANDED
            return f"blocks.{places[number]}.{layers[layer]}.{name}" if layer in layers else key
        layer, _, name = key.partition(".")
        return f"{_OUTSIDE[layer]}.{name}" if layer in _OUTSIDE else key

    return {rename(key): tensor for key, tensor in state.items()}


def _places(state: Mapping[str, Tensor]) -> dict[int, str]:
    """Number of a block -> `stage.block`."""
    widths = {
        int(m[1]): len(tensor)
        for key, tensor in state.items()
        if (m := _BLOCK.fullmatch(key)) and "_project_conv" in key
    }
    places: dict[int, str] = {}
    stage = block = -1
    last = None
    for number, width in sorted(widths.items()):
        stage, block = (stage, block + 1) if width == last else (stage + 1, 0)
        places[number], last = f"{stage}.{block}", width
    return places
