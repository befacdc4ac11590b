"""The layer that every network here is made of."""

from collections import OrderedDict

from torch import nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; padded so that stride 1 keeps the size.

    Keys are timm's for its layer of this name (`conv`, `bn`), which cannot be imported without torchvision.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1):
        padding = dilation * (kernel // 2)
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), act=nn.ReLU(inplace=True)))
