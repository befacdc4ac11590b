"""HRNet (Sun et al., arXiv 1904.04514) as segmentation papers use it: timm's layers, bilinear fusion.

timm enlarges by nearest neighbour and needs sides that are multiples of 32. OpenMMLab, behind the published results,
enlarges bilinearly and takes any size.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import cast

from torch import Tensor, nn

from bcd.models.layers import Backbone, resize, timm_backbone

# `hrnet_w18_small_v2` is the HRNetV2p-W18-Small of the papers.
HRNETS = ("hrnet_w18_small_v2", "hrnet_w18", "hrnet_w32", "hrnet_w40", "hrnet_w48")


class HRNet(Backbone):
    """Image `(N, 3, H, W)` to four maps of stride 4, 8, 16, 32; `name` is one of `HRNETS`.

    State-dict keys are timm's.
    """

    def __init__(self, name: str):
        super().__init__()
        net = timm_backbone(name, feature_location="", out_indices=(1, 2, 3, 4))
        self.channels = net.channels
        for child, module in net.named_children():
            self.add_module(child, module)
        for module in self.modules():
            if isinstance(module, nn.Upsample):
                module.mode, module.align_corners = "bilinear", False

    def forward(self, image: Tensor) -> list[Tensor]:
        x = image
        for layer in ("conv1", "bn1", "act1", "conv2", "bn2", "act2", "layer1"):
            x = self.get_submodule(layer)(x)
        maps = [x]
        for number in (1, 2, 3):
            maps = _branch_off(_layers(self, f"transition{number}"), maps)
            for unit in _layers(self, f"stage{number + 1}"):
                maps = _exchange(unit, maps)
        return maps


def _layers(module: nn.Module, name: str) -> nn.ModuleList:
    """A list of layers within timm's module; an nn.Sequential serves as well."""
    return cast("nn.ModuleList", module.get_submodule(name))


def _branch_off(transition: nn.ModuleList, maps: Sequence[Tensor]) -> list[Tensor]:
    """One branch more: existing ones stay, what is new or changed is computed from the coarsest."""
    return [maps[i] if isinstance(layer, nn.Identity) else layer(maps[-1]) for i, layer in enumerate(transition)]


def _exchange(unit: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """Each branch by itself, then every branch the sum of all, brought to its size."""
    maps = [branch(x) for branch, x in zip(_layers(unit, "branches"), maps, strict=True)]
    activation, fused = unit.get_submodule("fuse_act"), []
    for own, layers in enumerate(_layers(unit, "fuse_layers")):
        brought = [layer(x) for layer, x in zip(cast("nn.ModuleList", layers), maps, strict=True)]
        # Enlarged from a rounded-up half or quarter, the coarser ones may be a few pixels too large.
        size = maps[own].shape[2:]
        brought = brought[: own + 1] + [resize(x, size) for x in brought[own + 1 :]]
        fused.append(activation(reduce(add, brought)))
    return fused
