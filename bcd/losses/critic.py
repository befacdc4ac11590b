"""The critic of holistic distillation: SAGAN's discriminator, on score maps instead of images.

Zhang et al., "Self-Attention Generative Adversarial Networks" (arXiv 1805.08318) with the spectral normalisation of
Miyato et al. (arXiv 1802.05957). The form is that of SKD (networks/sagan_models.py, networks/spectral.py), which CIRKD
repeats (utils/sagan.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Four halvings leave the last 4x4 convolution, which does not pad, exactly one position.
MIN_SIZE = 64


class Critic(nn.Module):
    """Maps (N, channels, H, W), H and W at least `MIN_SIZE`, to unbounded scores (N, 1, H // 16 - 3, W // 16 - 3).

    Batch statistics standardise the input. Four convolutions of stride 2 widen it to `width`, 2, 4 and 8 times `width`.
    Self-attention follows the third and the fourth. The official code works at width 64 only.
    """

    def __init__(self, channels: int, width: int = 64):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.layers = nn.Sequential(
            SpectralConv2d(channels, width), nn.LeakyReLU(0.1),
            SpectralConv2d(width, 2 * width), nn.LeakyReLU(0.1),
            SpectralConv2d(2 * width, 4 * width), nn.LeakyReLU(0.1), SelfAttention(4 * width),
            SpectralConv2d(4 * width, 8 * width), nn.LeakyReLU(0.1), SelfAttention(8 * width),
            nn.Conv2d(8 * width, 1, kernel_size=4),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        # Not nn.BatchNorm2d: a job of several GPUs turns that into SyncBatchNorm, which has no second derivative. The
        # running statistics would never be read.
        return self.layers(F.batch_norm(maps, None, None, self.scale, self.shift, training=True))


class SpectralConv2d(nn.Conv2d):
    """4x4 convolution, stride 2, padding 1, whose weight (out, in * 4 * 4) is divided by its largest singular value.

    The buffer `u` estimates the left singular vector. Every forward in training mode improves it by one power
    iteration; in eval mode the improved estimate is used and forgotten. The gradient sees u and v as constants.
    torch.nn.utils.parametrizations.spectral_norm iterates in the other order, so its weights differ.
    """

    u: Tensor

    def __init__(self, channels: int, out_channels: int):
        super().__init__(channels, out_channels, kernel_size=4, stride=2, padding=1)
        self.register_buffer("u", F.normalize(torch.randn(out_channels), dim=0))

    def forward(self, maps: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(matrix.T @ self.u, dim=0)
            u = F.normalize(matrix @ v, dim=0)
            if self.training:
                self.u.copy_(u)
        sigma = u @ (matrix @ v)
        return F.conv2d(maps, self.weight / sigma, self.bias, self.stride, self.padding)


class SelfAttention(nn.Module):
    """x + gamma * attention over all positions of (N, channels, H, W), with queries and keys of channels // 8.

    gamma is learned and starts at 0. Holds N * (H W)^2 attention weights.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = max(1, channels // 8)
        self.query = nn.Conv2d(channels, inner, kernel_size=1)
        self.key = nn.Conv2d(channels, inner, kernel_size=1)
        self.value = nn.Conv2d(channels, channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        query, key, value = (project(maps).flatten(2) for project in (self.query, self.key, self.value))
        attention = (query.mT @ key).softmax(-1)  # not scaled by the root of the width, as in SAGAN
        return maps + self.gamma * (value @ attention.mT).unflatten(2, maps.shape[2:])
