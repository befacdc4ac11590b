"""Our RoIAlign against torchvision's: outputs and gradients in every bit."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

from bcd.models.detection.roi_align import Pool, RoIAlign


def regions(count, images, side, seed=0):
    """Boxes of all sizes, some outside of the image in part or as a whole, some without any extent."""
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draw) * side * 1.4 - 0.3 * side
    extent = torch.rand(count, 2, generator=draw) ** 3 * side
    extent[::7] = 0
    image = torch.randint(0, images, (count, 1), generator=draw)
    return torch.cat([image.float(), corner, corner + extent], 1)


@pytest.mark.parametrize(("count", "side"), [(60, 7), (20, 14), (3, 1), (0, 7)])
def test_the_gradient_is_torchvisions(count, side):
    torch.manual_seed(count)
    features = torch.randn(3, 20, 13, 18, requires_grad=True)
    boxes = regions(count, 3, 52)
    ours, theirs = RoIAlign.apply(features, boxes, 0.25, side), roi_align(features, boxes, side, 0.25, 2)
    assert torch.equal(ours, theirs)
    for gradient in (torch.randn_like(ours), torch.randn(count, side, side, 20).permute(0, 3, 1, 2)):
        mine, expected = (torch.autograd.grad(out, features, gradient, retain_graph=True)[0] for out in (ours, theirs))
        assert torch.equal(mine, expected) and mine.is_contiguous()


def test_the_gradient_by_differences():
    features = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    boxes = regions(5, 2, 20).double()
    assert torch.autograd.gradcheck(lambda x: RoIAlign.apply(x, boxes, 0.25, 3), features)


@pytest.mark.parametrize("levels", [[2], [2, 3, 4]])
@pytest.mark.parametrize("autocast", [False, True])
def test_pools_of_a_pyramid(levels, autocast):
    names = [f"p{level}" for level in levels]
    pools = [kind(names, 7, sampling_ratio=2) for kind in (MultiScaleRoIAlign, Pool)]
    for pool in pools:
        pool.scales = [2.0**-level for level in levels]
        pool.map_levels = LevelMapper(levels[0], levels[-1], canonical_scale=56)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if autocast else torch.float32
    maps = [torch.randn(2, 9, 128 >> level, 160 >> level, dtype=dtype, requires_grad=True) for level in levels]
    boxes = [regions(30, 1, 128, seed=n)[:, 1:] for n in (1, 2)]
    results = []
    for pool in pools:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = pool(dict(zip(names, maps, strict=True)), boxes, [(128, 160)] * 2)
        torch.manual_seed(1)
        results.append([out, *torch.autograd.grad(out, maps, torch.randn_like(out))])
    for theirs, ours in zip(*results, strict=True):
        assert ours.dtype == dtype and torch.equal(ours, theirs)
