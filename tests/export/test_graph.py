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


def test_the_sides_of_an_efficientnet_stay_short_expressions():
    """Each stride would double them, and the exporter would not come to an end with a detector."""
    strided = [Conv2dSame(3, 3, 3, stride=2) for _ in range(5)]
    module = in_whole_numbers(torch.nn.Sequential(*strided)).eval()
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(module, (torch.zeros(1, 3, 64, 96),), dynamic_shapes=(sides,))
    (output,) = program.graph.output_node().all_input_nodes
    assert max(len(str(side)) for side in output.meta["val"].shape) < 30
