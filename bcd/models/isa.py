"""Interlaced sparse self-attention (Huang et al., "Interlaced Sparse Self-Attention", arXiv 1907.12273, section 3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd.models.layers import ConvNormAct, Head

QUERY_CHANNELS = 256
# Cells of a grid laid over the map: pixels a cell apart attend to each other, then those of the same cell.
CELL = (8, 8)


class ISAHead(Head):
    """Attention among distant, then among near pixels of stage 4; sizes as in OpenMMLab's ISANet."""

    def __init__(self, in_channels: Sequence[int], channels: int, classes: int, dropout: float = 0.1):
        super().__init__()
        self.reduce = ConvNormAct(in_channels[3], channels, 3)
        self.far = SelfAttention(channels, QUERY_CHANNELS)
        self.near = SelfAttention(channels, QUERY_CHANNELS)
        self.neck = ConvNormAct(2 * channels, channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        x = self.reduce(stages[3])
        return self.classifier(self.dropout(self.neck(torch.cat([self._context(x), x], dim=1))))

    def _context(self, x: Tensor) -> Tensor:
        """`(N, C, h, w)` to the same: the map padded evenly to whole cells, attended to, and cut back."""
        (height, width), (cell_h, cell_w) = x.shape[2:], CELL
        # Rounded up by a sum: exporters turn -(-a // b) into a division that truncates.
        rows, columns = (height + cell_h - 1) // cell_h, (width + cell_w - 1) // cell_w
        extra_h, extra_w = rows * cell_h - height, columns * cell_w - width
        top, left = extra_h // 2, extra_w // 2
        x = F.pad(x, (left, extra_w - left, top, extra_h - top))

        # (N, C, rows, cell_h, columns, cell_w): one axis pair is the batch, the other the map that attends.
        x = x.unflatten(3, (columns, cell_w)).unflatten(2, (rows, cell_h))
        x = _attend(self.far, x.permute(0, 3, 5, 1, 2, 4))  # (N, cell_h, cell_w, C, rows, columns)
        x = _attend(self.near, x.permute(0, 4, 5, 3, 1, 2))  # (N, rows, columns, C, cell_h, cell_w)
        x = x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return x[:, :, top : top + height, left : left + width]


def _attend(attention: nn.Module, x: Tensor) -> Tensor:
    """Apply `attention` to `(N, a, b, C, h, w)` as to N*a*b maps."""
    return attention(x.flatten(0, 2)).unflatten(0, x.shape[:3])


class SelfAttention(nn.Module):
    """Dot-product attention of one head among all pixels of a map `(N, C, h, w)`, of the same shape."""

    def __init__(self, channels: int, query_channels: int):
        super().__init__()
        self.query = _projection(channels, query_channels)
        self.key = _projection(channels, query_channels)
        self.value = nn.Conv2d(channels, channels, 1)
        self.output = ConvNormAct(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (f(x).flatten(2).transpose(1, 2) for f in (self.query, self.key, self.value))
        # Spelt out as torch does it: exporters refuse `scaled_dot_product_attention` of three axes.
        scale = query.shape[2] ** -0.25
        weights = ((query * scale) @ (key.transpose(1, 2) * scale)).softmax(2)
        return self.output((weights @ value).transpose(1, 2).unflatten(2, x.shape[2:]))


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(inputs, outputs, 1), ConvNormAct(outputs, outputs, 1))
