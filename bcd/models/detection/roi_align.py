"""torchvision's RoIAlign with a quicker gradient on the CPU, equal to torchvision's in every bit.

torchvision works out the weights of the interpolation anew for each channel. Here they are worked out once, and the
gradient is a sparse matrix, pixels by bins, times the gradients of the bins. Its entries are added up bin by bin, in
torchvision's order (torchvision/csrc/ops/cpu/roi_align_kernel.cpp), so that the rounding is the same.
"""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import MultiScaleRoIAlign, roi_align

SAMPLES = 2  # in a bin, in each direction


class Pool(MultiScaleRoIAlign):
    """torchvision's, with `scales` and `map_levels` set."""

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        features = [x[name] for name in self.featmap_names]
        if features[0].device.type != "cpu":
            return super().forward(x, boxes, image_shapes)
        image = [torch.full_like(one[:, :1], n) for n, one in enumerate(boxes)]
        regions = torch.cat([torch.cat(image), torch.cat(boxes)], 1)
        levels = self.map_levels(boxes)
        pooled = features[0].new_zeros(len(regions), features[0].shape[1], *self.output_size)
        for level, (feature, scale) in enumerate(zip(features, self.scales, strict=True)):
            mine = torch.where(levels == level)[0]
            # As torchvision does under autocast.
            exact = feature.to(torch.promote_types(feature.dtype, torch.float32))
            found = RoIAlign.apply(exact, regions[mine].to(exact.dtype), scale, self.output_size[0])
            pooled[mine] = found.to(pooled.dtype)
        return pooled


class RoIAlign(torch.autograd.Function):
    """Regions (R, 5), image and corners, of features (N, C, H, W) on the CPU, pooled to (R, C, side, side)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, regions: Tensor, scale: float, side: int) -> Tensor:
        ctx.save_for_backward(regions)
        ctx.shape, ctx.scale = features.shape, scale
        return roi_align(features, regions, side, scale, SAMPLES)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        images, channels, height, width = ctx.shape
        (regions,) = ctx.saved_tensors
        side = gradient.shape[-1]
        pixel, weight = _interpolation(regions.numpy(), ctx.scale, side, (height, width))
        bins = gradient.permute(0, 2, 3, 1).reshape(-1, channels).contiguous().numpy()
        each = np.arange(len(bins) + 1, dtype=np.int32) * (4 * SAMPLES**2)
        spread = sparse.csc_array((weight, pixel, each), shape=(images * height * width, len(bins)))
        into = torch.from_numpy(spread @ bins).view(images, height, width, channels)
        return into.permute(0, 3, 1, 2).contiguous(), None, None, None


def _interpolation(
    regions: np.ndarray, scale: float, side: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, int32, and weights of what each bin is the sum of, in torchvision's order."""
    corners = regions[:, 1:] * regions.dtype.type(scale)
    (x, in_x), (y, in_y) = (_along(corners[:, a], corners[:, a + 2], side, size[1 - a]) for a in (0, 1))
    row = regions[:, 0].astype(np.int32)[:, None, None] * size[0] + y
    # Of each bin the samples in both directions, and of each the upper and lower pixel, the left and right one: spelt
    # out before the bins of both directions meet, since numpy is slow at many axes of two.
    sample_y, sample_x, lower, right = np.indices((SAMPLES, SAMPLES, 2, 2)).reshape(4, -1)
    of_y, of_x = 2 * sample_y + lower, 2 * sample_x + right
    pixel = (row * size[1]).take(of_y, 2)[:, :, None] + x.take(of_x, 2)[:, None]
    # The division by the number of samples, a power of two, is exact.
    weight = (in_y / in_y.dtype.type(SAMPLES**2)).take(of_y, 2)[:, :, None] * in_x.take(of_x, 2)[:, None]
    return pixel.ravel(), weight.ravel()


def _along(start: np.ndarray, stop: np.ndarray, side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """In one direction, the two pixels beside each sample and their weights: (R, side, SAMPLES * 2)."""
    kind = start.dtype.type
    step = (np.maximum(stop - start, kind(1)) / kind(side))[:, None, None]
    bins, samples = np.arange(side, dtype=kind)[:, None], np.arange(SAMPLES, dtype=kind) + kind(0.5)
    at = start[:, None, None] + bins * step + samples * step / kind(SAMPLES)
    outside = (at < -1) | (at > size)
    at = np.maximum(at, kind(0))
    before = np.minimum(at.astype(np.int32), size - 1)
    beyond = np.where(before == size - 1, kind(0), at - before.astype(kind))
    weights = np.stack([kind(1) - beyond, beyond], -1)
    weights[outside] = 0
    pixels = np.stack([before, np.minimum(before + 1, size - 1)], -1)
    flat = (len(start), side, SAMPLES * 2)
    return pixels.reshape(flat), weights.reshape(flat)
