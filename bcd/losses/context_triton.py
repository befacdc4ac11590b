"""The context loss of one image on a GPU: two fused kernels that hold no relation outside the chip.

What `bcd.losses.context_tiled` computes, with the largest logit of each row subtracted, so for logits of any size.
Imported only where the maps lie on a GPU and Triton is installed.

Verified: the numbers, float32 and float16, in Triton's interpreter on the CPU (tests/test_context.py); that the kernels
compile for compute capabilities 8.0 and 9.0, float32 and bfloat16. They have not run on a GPU yet: the tests and
`benchmarks/context.py` do so where there is one.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = COLUMNS = 64
# By bytes of an element: channels taken at a time by the products that make logits, and channels of the gradient one
# program holds (wider features repeat the logits for each such part). With more, the registers of an H100 overflow.
CHANNELS = {2: 64, 4: 16}
WIDEST = {2: 256, 4: 128}


def fused_self_relation_kl(
    s: Tensor,
    t: Tensor,
    s_scale: Tensor,
    t_scale: Tensor,
    *,
    differentiate: bool = True,
    product_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor | None]:
    """`tiled_self_relation_kl` of float32 features s (C_s, L) and t (C_t, L) with scales (L,).

    Where they were half floats of type `product_dtype`, the products take them as they were, sum in float32
    and are scaled afterwards: the logits lose nothing, only the slopes of the gradient are rounded.
    """
    if not s.shape[1]:
        return s.new_zeros(()), s.clone() if differentiate else None
    if product_dtype == torch.float32:  # scaled first, large logits lose less than when scaled afterwards
        s, t = s * s_scale, t * t_scale
        s_scale, t_scale = torch.ones_like(s_scale), torch.ones_like(t_scale)
    s, t = (x.mT.to(product_dtype).contiguous() for x in (s, t))  # pixels as rows
    length, channels = s.shape
    step, widest = CHANNELS[s.element_size()], WIDEST[s.element_size()]
    operands = s, t, s_scale, t_scale, length, channels, t.shape[1]
    log_sums = s.new_empty(2, length, dtype=torch.float32)
    divergence = torch.empty_like(log_sums[0])
    row_blocks = triton.cdiv(length, ROWS)
    _divergence[(row_blocks,)](*operands, log_sums, divergence, ROWS, COLUMNS, step, num_warps=8)
    gradient = None
    if differentiate:
        gradient = s.new_empty(s.shape, dtype=torch.float32)
        width = max(16, min(widest, triton.next_power_of_2(channels)))
        grid = row_blocks, triton.cdiv(channels, width)
        _gradient[grid](*operands, log_sums, gradient, ROWS, COLUMNS, step, width, num_warps=8)
    return divergence.sum().clamp(min=0), None if gradient is None else gradient.mT


# The kernels are without types, as Triton takes annotations for those of a kernel's arguments.


@triton.jit
def _logits(x, scale, rows, columns, length, channels, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """f_i . f_j for the given rows and columns, (rows, columns) in float32; 0 where either lies outside."""
    result = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, channels, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        here = channel[None, :] < channels
        a = tl.load(x + rows[:, None] * channels + channel[None, :], (rows[:, None] < length) & here, 0.0)
        b = tl.load(x + columns[:, None] * channels + channel[None, :], (columns[:, None] < length) & here, 0.0)
        result = tl.dot(a, tl.trans(b), result, input_precision="tf32x3")
    row_scale = tl.load(scale + rows, rows < length, 0.0)
    column_scale = tl.load(scale + columns, columns < length, 0.0)
    return result * row_scale[:, None] * column_scale[None, :]


@triton.jit
def _divergence(  # type: ignore[no-untyped-def]
    s, t, s_scale, t_scale, length, s_channels, t_channels, log_sums, divergence,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Of each row of ROWS: log sum exp of both logits, and the divergence, in one pass over the columns."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    max_s = tl.full((ROWS,), -float("inf"), tl.float32)
    max_t, sum_s = max_s, tl.zeros((ROWS,), tl.float32)
    sum_t, moment = sum_s, sum_s
    for start in range(0, length, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        inside = columns[None, :] < length
        logits_s = _logits(s, s_scale, rows, columns, length, s_channels, CHANNELS)
        logits_t = _logits(t, t_scale, rows, columns, length, t_channels, CHANNELS)
        difference = logits_t - logits_s
        logits_s = tl.where(inside, logits_s, -float("inf"))
        logits_t = tl.where(inside, logits_t, -float("inf"))
        new_s = tl.maximum(max_s, tl.max(logits_s, 1))
        new_t = tl.maximum(max_t, tl.max(logits_t, 1))
        e_t = tl.exp(logits_t - new_t[:, None])
        shrink = tl.exp(max_t - new_t)
        sum_s = sum_s * tl.exp(max_s - new_s) + tl.sum(tl.exp(logits_s - new_s[:, None]), 1)
        sum_t = sum_t * shrink + tl.sum(e_t, 1)
        moment = moment * shrink + tl.sum(e_t * difference, 1)
        max_s, max_t = new_s, new_t
    log_s, log_t = max_s + tl.log(sum_s), max_t + tl.log(sum_t)
    tl.store(log_sums + rows, log_s, rows < length)
    tl.store(log_sums + length + rows, log_t, rows < length)
    tl.store(divergence + rows, moment / sum_t - (max_t - max_s) - tl.log(sum_t / sum_s), rows < length)


@triton.jit
def _gradient(  # type: ignore[no-untyped-def]
    s, t, s_scale, t_scale, length, s_channels, t_channels, log_sums, gradient,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Rows ROWS and channels WIDTH of M f, M = (R_s - R_t) + (R_s - R_t)^T."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    log_s = tl.load(log_sums + rows, rows < length, 0.0)[:, None]
    log_t = tl.load(log_sums + length + rows, rows < length, 0.0)[:, None]
    result = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(0, length, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        inside = columns < length
        logits_s = _logits(s, s_scale, rows, columns, length, s_channels, CHANNELS)
        logits_t = _logits(t, t_scale, rows, columns, length, t_channels, CHANNELS)
        column_s = tl.load(log_sums + columns, inside, 0.0)[None, :]
        column_t = tl.load(log_sums + length + columns, inside, 0.0)[None, :]
        slope = tl.exp(logits_s - log_s) - tl.exp(logits_t - log_t)
        slope += tl.exp(logits_s - column_s) - tl.exp(logits_t - column_t)
        slope *= tl.load(s_scale + columns, inside, 0.0)[None, :]  # 0 outside
        here = inside[:, None] & (channel[None, :] < s_channels)
        f = tl.load(s + columns[:, None] * s_channels + channel[None, :], here, 0.0)
        result = tl.dot(slope.to(f.dtype), f, result, input_precision="tf32x3")
    here = (rows[:, None] < length) & (channel[None, :] < s_channels)
    tl.store(gradient + rows[:, None] * s_channels + channel[None, :], result, here)
