"""Any backbone that timm has feature maps of, by its name: the entries of `bcd.config.timm_backbones`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd.config.timm_backbones import SIDE, STRIDES, TimmBackbone, chosen, index_version, timm_backbones
from bcd.errors import UserError
from bcd.models.layers import Backbone

# What the words of an entry's options mean to timm.
VALUES = {"dynamic_img_size": True, "strict_img_size": False, "patch_size": SIDE}


def arguments(options: str) -> dict[str, Any]:
    """The words of an entry's options as arguments of `timm.create_model`."""
    return {word: VALUES[word] for word in options.split("+") if word}


class TimmPyramid(Backbone):
    """Image `(N, 3, H, W)` to four contiguous maps of stride 4, 8, 16, 32, whose sides are rounded up.

    `net` is timm's feature extractor. Images are padded with zeros to the sides that it takes, and maps cropped.
    A plain transformer, whose maps have all one stride, has a `pyramid` above its last block.
    Raises UserError where the installed timm has other maps than the index.
    """

    def __init__(self, name: str, *, pretrained: bool = False):
        super().__init__()
        import timm

        self.name = name
        entry = timm_backbones()[name]
        maps = chosen(entry.strides)
        net: Any = timm.create_model(
            name, features_only=True, pretrained=pretrained, **arguments(entry.options) | _maps(entry, maps)
        )
        found = tuple(net.feature_info.reduction()), tuple(net.feature_info.channels())
        if found != (tuple(entry.strides[i] for i in maps), tuple(entry.channels[i] for i in maps)):
            raise UserError(
                f"the installed timm {timm.__version__} has other maps of '{name}' than timm {index_version()}, of "
                "which bcd/config/timm_backbones.txt is; install that one, or make the file anew by "
                "`python -m bcd.models.timm_index`"
            )
        self.net = net
        self.multiple, self.channels_last = entry.multiple, entry.layout == "nhwc"
        self.pyramid = SimplePyramid(entry.channels[-1], entry.strides[-1]) if entry.plain else None
        self.channels = self.pyramid.channels if self.pyramid else list(found[1])

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[2:]
        maps = self.net(padded(image, self.multiple))
        if self.channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        if self.pyramid is not None:
            maps = self.pyramid(maps[-1])
        sizes = [((height + s - 1) // s, (width + s - 1) // s) for s in STRIDES]
        return [x[:, :, :h, :w].contiguous() for x, (h, w) in zip(maps, sizes, strict=True)]


def _maps(entry: TimmBackbone, maps: tuple[int, ...]) -> dict[str, Any]:
    """`out_indices`, unless it is all that timm gives: of a plain network the last, which timm counts as one."""
    if entry.plain:
        return {"out_indices": 1}
    return {"out_indices": maps} if len(maps) < len(entry.strides) else {}


def padded(image: Tensor, multiple: int) -> Tensor:
    """`image` (N, 3, H, W) with zeros at the right and below, up to sides that are multiples."""
    if multiple == 1:
        return image
    # Exporters get the remainder of a negative number wrong where sizes stay open.
    below, right = ((multiple - side % multiple) % multiple for side in image.shape[2:])
    return F.pad(image, (0, right, 0, below))


class SimplePyramid(nn.Module):
    """Maps of stride 4, 8, 16 and 32 from the last one of a plain transformer.

    The simple feature pyramid of ViTDet (Li et al., ECCV 2022, section 3; detectron2/modeling/backbone/vit.py):
    transposed convolutions above its stride, max pooling below it. The 1x1 and 3x3 convolutions that end each level
    there are left to the heads, which have their own. A doubling halves the channels.
    """

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.channels: list[int] = []
        self.levels = nn.ModuleList()
        for wanted in STRIDES:
            layers: list[nn.Module] = []
            width, at = channels, stride
            while at > wanted:
                if layers:
                    layers += [ChannelNorm(width), nn.GELU()]
                layers.append(nn.ConvTranspose2d(width, width // 2, 2, 2))
                width, at = width // 2, at // 2
            while at < wanted:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
                at *= 2
            self.levels.append(nn.Sequential(*layers))
            self.channels.append(width)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [level(x) for level in self.levels]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of `(N, C, H, W)`, epsilon 1e-6."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def timm_key(key: str) -> str:
    """A state-dict key of a model over a `TimmPyramid` as timm's classifier of that name has it.

    timm flattens the first level of some when it makes extractors of them, and wraps others: `stages_0.` of ours is
    `stages.0.` there, and `model.blocks.` is `blocks.`.
    """
    key = key.removeprefix("backbone.").removeprefix("net.").removeprefix("model.")
    return re.sub(r"^([a-z]+(?:_[a-z]+)*)_(\d+)\.", r"\1.\2.", key)


def timm_state(name: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state dict for timm's model `name`, as timm itself would load it.

    Its filters bring the authors' own files to its names, and patches and position embeddings to the model's size. A
    state that a filter does not understand stays as it is.
    """
    import timm

    options = arguments(timm_backbones()[name].options)
    with torch.device("meta"):
        net = timm.create_model(name, **options)
    adapt = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    try:
        return adapt(dict(state), net) if adapt else state
    except (TypeError, KeyError, RuntimeError, AttributeError, ValueError, IndexError):
        return state
