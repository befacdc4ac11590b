"""Segmentation heads: backbone stages in, logits at the head's own resolution out.

All of them are a `bcd.models.layers.Head`. Resizes are bilinear with `align_corners=False`. PSP, UPerNet and DeepLab
normalise over a batch of 1x1 maps, so training needs at least two images per batch (torch raises ValueError otherwise).
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bcd.models.isa import ISAHead
from bcd.models.layers import ConvNormAct, Head, resize

PSP_SCALES = (1, 2, 3, 6)
ASPP_DILATIONS = (1, 12, 24, 36)
LOW_LEVEL_CHANNELS = 48


def _separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    depthwise = ConvNormAct(inputs, inputs, 3, dilation=dilation, groups=inputs)
    return nn.Sequential(depthwise, ConvNormAct(inputs, outputs, 1))


def _atrous(inputs: int, outputs: int, dilation: int) -> nn.Module:
    return ConvNormAct(inputs, outputs, 1) if dilation == 1 else _separable(inputs, outputs, dilation)


def _resized(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """All maps brought to `size`, concatenated along the channels."""
    return torch.cat([resize(x, size) for x in maps], dim=1)


class PyramidPooling(nn.ModuleList):
    """The input and its averages over 1x1 to 6x6 regions: `(N, inputs, h, w)` to `(N, inputs + 4 * outputs, h, w)`."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(nn.Sequential(nn.AdaptiveAvgPool2d(s), ConvNormAct(inputs, outputs, 1)) for s in PSP_SCALES)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, _resized([pool(x) for pool in self], x.shape[2:])], dim=1)


class PSPHead(Head):
    """Pyramid pooling on stage 4 (Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, figure 3)."""

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        deepest = in_channels[3]
        self.pools = PyramidPooling(deepest, channels)
        self.neck = ConvNormAct(deepest + len(PSP_SCALES) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        return self.classifier(self.dropout(self.neck(self.pools(stages[3]))))


class DeepLabV3Head(Head):
    """Atrous pyramid on stage 4: dilations 1, 12, 24, 36 and an image branch, joined by a 1x1 and a 3x3 convolution.

    Chen et al., "Rethinking Atrous Convolution", arXiv 1706.05587, figure 5; layers as in torchvision's `DeepLabHead`,
    which has 256 channels, and its dropout of one half between the two convolutions instead of before the classifier.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        deepest = in_channels[3]
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(deepest, channels, 1))
        self.aspp = nn.ModuleList(
            ConvNormAct(deepest, channels, 1 if dilation == 1 else 3, dilation=dilation) for dilation in ASPP_DILATIONS
        )
        self.bottleneck = ConvNormAct((len(ASPP_DILATIONS) + 1) * channels, channels, 1)
        self.neck = ConvNormAct(channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        x = stages[3]
        branches = [*(branch(x) for branch in self.aspp), resize(self.image_pool(x), x.shape[2:])]
        return self.classifier(self.dropout(self.neck(self.bottleneck(torch.cat(branches, dim=1)))))


class DeepLabV3PlusHead(Head):
    """Depthwise-separable atrous pyramid on stage 4, refined with stage 1.

    Chen et al., "Encoder-Decoder with Atrous Separable Convolution", ECCV 2018, figure 2; layer sizes as in
    OpenMMLab's depthwise-separable ASPP head: dilations 1, 12, 24, 36, an image branch, 48 low-level
    channels.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        low, deepest = in_channels[0], in_channels[3]
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(deepest, channels, 1))
        self.aspp = nn.ModuleList(_atrous(deepest, channels, dilation) for dilation in ASPP_DILATIONS)
        self.bottleneck = ConvNormAct((len(ASPP_DILATIONS) + 1) * channels, channels, 3)
        self.low_level = ConvNormAct(low, LOW_LEVEL_CHANNELS, 1)
        joined = channels + LOW_LEVEL_CHANNELS
        self.neck = nn.Sequential(_separable(joined, channels), _separable(channels, channels))
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        low, x = stages[0], stages[3]
        branches = [resize(self.image_pool(x), x.shape[2:]), *(branch(x) for branch in self.aspp)]
        context = resize(self.bottleneck(torch.cat(branches, dim=1)), low.shape[2:])
        return self.classifier(self.dropout(self.neck(torch.cat([context, self.low_level(low)], dim=1))))


class FCNHead(Head):
    """One 3x3 convolution on stage 3: the auxiliary head of PSPNet and DeepLabV3+, used in training only."""

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        self.neck = ConvNormAct(in_channels[2], channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        return self.classifier(self.dropout(self.neck(stages[2])))


class MultiScaleFCNHead(Head):
    """All stages at stage 1's size, one 1x1 convolution: the head of HRNetV2 (Sun et al., arXiv 1904.04514, figure 3).

    The papers' `channels` are the sum of the backbone's: 270 for W18, 720 for W48.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        self.neck = ConvNormAct(sum(in_channels), channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        return self.classifier(self.dropout(self.neck(_resized(stages, stages[0].shape[2:]))))


class SegFormerHead(Head):
    """Each stage projected to `channels` and brought to stage 1's size, then fused by a 1x1 convolution.

    Xie et al., "SegFormer", NeurIPS 2021, section 3.2; with the batch norms of OpenMMLab's head.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        self.laterals = nn.ModuleList(ConvNormAct(inputs, channels, 1) for inputs in in_channels)
        self.neck = ConvNormAct(len(in_channels) * channels, channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        maps = [lateral(stage) for lateral, stage in zip(self.laterals, stages, strict=True)]
        return self.classifier(self.dropout(self.neck(_resized(maps, stages[0].shape[2:]))))


class UPerHead(Head):
    """A feature pyramid on top of pyramid pooling (Xiao et al., "Unified Perceptual Parsing", ECCV 2018, figure 4)."""

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        *finer, deepest = in_channels
        self.pools = PyramidPooling(deepest, channels)
        self.bottleneck = ConvNormAct(deepest + len(PSP_SCALES) * channels, channels, 3)
        self.laterals = nn.ModuleList(ConvNormAct(inputs, channels, 1) for inputs in finer)
        self.outputs = nn.ModuleList(ConvNormAct(channels, channels, 3) for _ in finer)
        self.neck = ConvNormAct(len(in_channels) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        x = self.bottleneck(self.pools(stages[3]))
        levels = [x]
        for lateral, stage in zip(reversed(self.laterals), reversed(stages[:3]), strict=True):
            y = lateral(stage)
            x = y + resize(x, y.shape[2:])
            levels.insert(0, x)
        finest, *coarser = [*(output(x) for output, x in zip(self.outputs, levels, strict=False)), levels[3]]
        maps = torch.cat([finest, _resized(coarser, finest.shape[2:])], dim=1)
        return self.classifier(self.dropout(self.neck(maps)))


class LightHead(Head):
    """All stages projected to `channels`, summed from coarse to fine, one 3x3 convolution at stage 1's size.

    The top-down sum of 1x1 laterals, enlarged by nearest neighbour, is that of feature pyramids (Lin et al.,
    CVPR 2017, section 3), without the 3x3 per level.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        # No bias: the batch norm of the neck would all but cancel it.
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, channels, 1, bias=False) for inputs in in_channels)
        self.neck = ConvNormAct(channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        *finer, x = (lateral(stage) for lateral, stage in zip(self.laterals, stages, strict=True))
        for y in reversed(finer):
            x = y + interpolate(x, size=y.shape[2:], mode="nearest")
        return self.classifier(self.dropout(self.neck(x)))


class FPNHead(Head):
    """A feature pyramid whose levels are each brought to stage 1's size and summed: the head of Semantic FPN.

    Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, section 3 and figure 3: a level of stride 4 times
    2^k takes k steps of a 3x3 convolution and a doubling, the finest one a single convolution. As OpenMMLab's head,
    but for BatchNorm in the pyramid, too, in place of the paper's group norm.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        self.laterals = nn.ModuleList(ConvNormAct(inputs, channels, 1) for inputs in in_channels)
        self.outputs = nn.ModuleList(ConvNormAct(channels, channels, 3) for _ in in_channels)
        steps = (max(1, level) for level in range(len(in_channels)))
        self.scales = nn.ModuleList(
            nn.ModuleList(ConvNormAct(channels, channels, 3) for _ in range(count)) for count in steps
        )
        # Where the sum of the levels is to be found as one tensor.
        self.neck = nn.Identity()
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        maps = [lateral(stage) for lateral, stage in zip(self.laterals, stages, strict=True)]
        for finer, coarser in zip(reversed(range(len(maps) - 1)), reversed(range(1, len(maps))), strict=True):
            maps[finer] = maps[finer] + interpolate(maps[coarser], size=maps[finer].shape[2:], mode="nearest")
        sizes = [stage.shape[2:] for stage in stages]
        levels = [output(x) for output, x in zip(self.outputs, maps, strict=True)]
        total = sum(self._enlarged(level, x, sizes) for level, x in enumerate(levels))
        return self.classifier(self.dropout(self.neck(total)))

    def _enlarged(self, level: int, x: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
        for step, conv in enumerate(cast("nn.ModuleList", self.scales[level]), 1):
            x = conv(x)
            if level:
                x = resize(x, sizes[level - step])
        return x


class LRASPPHead(Head):
    """Lite reduced atrous pyramid pooling (Howard et al., "Searching for MobileNetV3", ICCV 2019, section 6.4).

    Stage 4, weighted by a gate on its average, and stage 2 as it is, each classified by a 1x1 convolution, and summed;
    after torchvision's `LRASPPHead`. The two classifiers are one here, on both maps side by side. The paper gates with
    a large average pooling; as in torchvision, it is global.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        low, deepest = in_channels[1], in_channels[3]
        self.projection = ConvNormAct(deepest, channels, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(deepest, channels, 1, bias=False), nn.Sigmoid())
        # Where both maps are to be found as one tensor.
        self.neck = nn.Identity()
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels + low, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        low, x = stages[1], stages[3]
        high = resize(self.projection(x) * self.gate(x), low.shape[2:])
        return self.classifier(self.dropout(self.neck(torch.cat([high, low], dim=1))))


# Each is made from the backbone's channels, its own channels, the number of classes and the dropout.
HEADS: dict[str, Callable[[Sequence[int], int, int, float], Head]] = {
    "light": LightHead,
    "psp": PSPHead,
    "isa": ISAHead,
    "deeplabv3": DeepLabV3Head,
    "deeplabv3plus": DeepLabV3PlusHead,
    "fcn": MultiScaleFCNHead,
    "uper": UPerHead,
    "segformer": SegFormerHead,
    "fpn": FPNHead,
    "lraspp": LRASPPHead,
}
# Heads of short trainings: in a few hundred steps a small initial classifier costs a good part to grow out of.
SHORT = (LightHead, FPNHead, LRASPPHead)


def init_head(head: Head) -> None:
    """Kaiming-normal convolutions, classifier of deviation 0.01; draws from torch's global generator.

    Those in `SHORT` keep torch's own initial classifier.
    """
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    if isinstance(head, SHORT):
        head.classifier.reset_parameters()
        return
    nn.init.normal_(head.classifier.weight, std=0.01)
    if head.classifier.bias is not None:
        nn.init.zeros_(head.classifier.bias)
