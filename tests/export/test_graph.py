"""The graph that is exported says what the model says."""

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame

from bcd.export.graph import in_whole_numbers


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding_in_whole_numbers_is_timms(stride, kernel, dilation):
    torch.manual_seed(0)
    conv = Conv2dSame(2, 3, kernel, stride=stride, dilation=dilation)
    images = [torch.randn(1, 2, height, 31 - height) for height in range(9, 16)]
    with torch.no_grad():
        expected = [conv(image) for image in images]
        found = [in_whole_numbers(conv)(image) for image in images]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
