"""HRNet (Sun et al., arXiv 1904.04514) as segmentation papers use it: timm's layers, bilinear fusion.

timm enlarges by nearest neighbour and needs sides that are multiples of 32. OpenMMLab, behind the published results,
enlarges bilinearly and takes any size.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add

from torch import Tensor, nn

from bcd.models.layers import resize

# `hrnet_w18_small_v2` is the HRNetV2p-W18-Small of the papers.
HRNETS = ("hrnet_w18_small_v2", "hrnet_w18", "hrnet_w32", "hrnet_w40", "hrnet_w48")


class HRNet(nn.Module):
    """Image `(N, 3, H, W)` to four maps of stride 4, 8, 16, 32; `name` is one of `HRNETS`.

    State-dict keys are timm's.
    """

    def __init__(self, name: str):
        super().__init__()
        import timm

        net = timm.create_model(name, features_only=True, feature_location="", out_indices=(1, 2, 3, 4))
        self.channels = net.feature_info.channels()
        for child, module in net.named_children():
            self.add_module(child, module)
        for module in self.modules():
            if isinstance(module, nn.Upsample):
                module.mode, module.align_corners = "bilinear", False

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.act1(self.bn1(self.conv1(image)))
        x = self.act2(self.bn2(self.conv2(x)))
        maps = [self.layer1(x)]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            maps = _branch_off(transition, maps)
            for unit in stage:
                maps = _exchange(unit, maps)
        return maps


def _branch_off(transition: Sequence[nn.Module], maps: Sequence[Tensor]) -> list[Tensor]:
    """One branch more: existing ones stay, what is new or changed is computed from the coarsest."""
    return [maps[i] if isinstance(layer, nn.Identity) else layer(maps[-1]) for i, layer in enumerate(transition)]


def _exchange(unit: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """Each branch by itself, then every branch the sum of all, brought to its size."""
    maps = [branch(x) for branch, x in zip(unit.branches, maps, strict=True)]
    fused = []
    for own, layers in enumerate(unit.fuse_layers):
        brought = [layer(x) for layer, x in zip(layers, maps, strict=True)]
        # Enlarged from a rounded-up half or quarter, the coarser ones may be a few pixels too large.
        size = maps[own].shape[2:]
        brought = brought[: own + 1] + [resize(x, size) for x in brought[own + 1 :]]
        fused.append(unit.fuse_act(reduce(add, brought)))
    return fused
