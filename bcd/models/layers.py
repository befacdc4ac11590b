"""What every network here is made of."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.functional import interpolate


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; padded so that stride 1 keeps the size.

    Keys are timm's for its layer of this name (`conv`, `bn`), which cannot be imported without torchvision.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1):
        padding = dilation * (kernel // 2)
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), act=nn.ReLU(inplace=True)))


class Backbone(nn.Module):
    """Image `(N, 3, H, W)` to a list of four maps; `channels` are those of the maps."""

    channels: list[int]


def timm_backbone(name: str, **options: Any) -> Backbone:
    """A feature pyramid of timm, which is a `Backbone` in all but its class; `options` are those of `create_model`."""
    # timm brings torchvision, which takes seconds to import; models without it should not wait.
    import timm

    net: Any = timm.create_model(name, features_only=True, **options)
    net.channels = net.feature_info.channels()
    return cast("Backbone", net)


class Head(nn.Module):
    """The four maps of a backbone to logits `(N, classes, h, w)`.

    The output of `neck` enters `dropout`, and then `classifier`.
    """

    neck: nn.Module
    dropout: nn.Dropout2d
    classifier: nn.Conv2d


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of `(N, C, h, w)` to `(N, C, *size)`, pixel centres aligned (`align_corners=False`).

    Also where the size is right already: published operation counts contain such resizes, and they cost little.
    """
    return interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
