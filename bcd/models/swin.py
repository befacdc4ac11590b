"""Swin Transformers (Liu et al., ICCV 2021) as UPerNet uses them: timm's layers, for images of any size.

Where a map is no multiple of the window, OpenMMLab pads it before the cyclic shift, timm after it, which gives other
windows. OpenMMLab also shifts where one window covers the map, and normalises each of the four maps.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd.models.layers import Backbone

SWINS = (
    "swin_tiny_patch4_window7_224",
    "swin_small_patch4_window7_224",
    "swin_base_patch4_window7_224",
    "swin_base_patch4_window12_384",
    "swin_large_patch4_window7_224",
    "swin_large_patch4_window12_384",
)


class Swin(Backbone):
    """Image `(N, 3, H, W)` to four normalised maps of stride 4, 8, 16, 32; `name` is one of `SWINS`.

    State-dict keys are timm's, but for `norms`, which no classifier has. Stochastic depth grows to 0.3, as in the
    published training of UPerNet.
    """

    # timm's own modules, whose attributes torch does not know.
    patch_embed: Any
    layers: Any

    def __init__(self, name: str):
        super().__init__()
        import timm

        net: Any = timm.create_model(
            name, num_classes=0, always_partition=True, dynamic_img_size=True, drop_path_rate=0.3
        )
        self.patch_embed, self.layers = net.patch_embed, net.layers
        self.patch_embed.dynamic_img_pad = True
        self.channels = [info["num_chs"] for info in net.feature_info]
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        x, maps = self.patch_embed(image), []
        for stage, norm in zip(self.layers, self.norms, strict=True):
            x = stage.downsample(x)
            for block in stage.blocks:
                x = x + block.drop_path1(_attend(block, block.norm1(x)))
                x = x + block.drop_path2(block.mlp(block.norm2(x)))
            maps.append(norm(x).permute(0, 3, 1, 2).contiguous())
        return maps


def _attend(block: Any, x: Tensor) -> Tensor:
    """Attention of timm's block within its windows, `(N, H, W, C)` to the same."""
    from timm.models.swin_transformer import window_partition, window_reverse

    _, height, width, channels = x.shape
    size, shift = block.window_size, block.shift_size
    x = F.pad(x, (0, 0, 0, -width % size[1], 0, -height % size[0]))
    x = torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2))
    windows = window_partition(x, size).flatten(1, 2)
    windows = block.attn(windows, mask=block.get_attn_mask(x)).view(-1, *size, channels)
    x = window_reverse(windows, size, *x.shape[1:3])
    return torch.roll(x, shift, dims=(1, 2))[:, :height, :width]
