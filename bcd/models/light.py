"""The small backbone of the default suite, made to train in seconds on one CPU core."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bcd.models.layers import Backbone, ConvNormAct


class LightBackbone(Backbone):
    """A residual network at a fraction of the usual width: image `(N, 3, H, W)` to four maps.

    A 3x3 stem of stride 2, then per stage `depth` basic blocks (He et al., CVPR 2016, figure 5 left), the
    first with the stage's stride, all with its dilation. Plain torch rather than timm, whose import alone would
    be a good part of these runs. `channels` are those of the four maps.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], strides: Sequence[int], dilations: Sequence[int]):
        super().__init__()
        self.channels = list(widths)
        self.stem = ConvNormAct(3, widths[0], 3, stride=2)
        inputs = [widths[0], *widths[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(
                BasicBlock(entering, width, stride, dilation),
                *(BasicBlock(width, width, 1, dilation) for _ in range(depth - 1)),
            )
            for entering, width, depth, stride, dilation in zip(inputs, widths, depths, strides, dilations, strict=True)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> list[Tensor]:
        x, stages = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        return stages


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int):
        super().__init__()
        self.conv1 = ConvNormAct(inputs, outputs, 3, stride=stride, dilation=dilation)
        self.conv2 = conv_norm(outputs, outputs, 3, dilation=dilation)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution and batch norm, to be activated after a sum."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))
