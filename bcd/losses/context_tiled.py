"""The context loss of one image in tiles of relations, for the CPU and for whatever else PyTorch runs on."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows and columns of one tile of relations: small enough for the caches, large enough for products at full speed.
TILE = (320, 448)
# Up to this many relations of an image the tiles are kept from the first pass to the second rather than made again.
KEPT_RELATIONS = 1 << 20
# Largest logit whose exponential is taken as it is: sums of exp(40) stay far from overflow, exp(-40) from underflow.
SAFE_LOGIT = 40.0


def tiled_self_relation_kl(
    s: Tensor, t: Tensor, differentiate: bool = True, *, tile: tuple[int, int] = TILE, kept: int = KEPT_RELATIONS
) -> tuple[Tensor, Tensor | None]:
    """Sum over i of KL(R_t[i] || R_s[i]), R = softmax(F F^T), for tokens s (L, C_s) and t (L, C_t).

    Returns the sum and, if `differentiate`, its gradient by `s`. `tile` has the rows and columns of R held at a time;
    up to `kept` relations, all are. The result depends on both only through rounding.
    """
    gradient = torch.zeros_like(s) if differentiate else None
    longest = max(torch.linalg.vector_norm(x, dim=1).max() for x in (s, t))
    if longest**2 > SAFE_LOGIT:
        return _by_rows(s, t, gradient, max(1, tile[0] * tile[1] // len(s))), gradient
    return _by_tiles(s, t, gradient, tile, keep=len(s) ** 2 <= kept), gradient


def _by_tiles(s: Tensor, t: Tensor, gradient: Tensor | None, tile: tuple[int, int], keep: bool) -> Tensor:
    """The loss, adding its gradient to `gradient`; takes E = exp(S) without a shift, which needs small logits.

    E is symmetric like S, so one pass over the upper triangle gives the row sums Z, and with them
    KL_i = sum_j E_t (S_t - S_s) / Z_t + log(Z_s / Z_t). A second pass over it gives the gradient.
    """
    sums = s.new_zeros(3, len(s))
    kept = []
    for part in _tiles(s, t, tile, keep):
        e_s, e_t, moment = part.block  # of which the first still has to become what it is called
        moment.sub_(e_s).mul_(e_t)
        e_s.exp_()
        sums[:, part.i].add_(part.whole.sum(2))
        sums[:, part.new].add_((part.whole[..., part.seen :] if part.seen else part.whole).sum(1))
        if keep:
            kept.append(part)
    z_s, z_t, moment = sums
    if gradient is not None:
        row_s, row_t = 1 / z_s, 1 / z_t
        column_s, column_t = row_s.unsqueeze(1), row_t.unsqueeze(1)
        for part in kept or _tiles(s, t, tile, keep):
            e_s, e_t, factor = part.block
            if not keep:
                e_s.exp_()
            e_s.mul_(torch.add(column_s[part.i], row_s[part.j], out=factor))
            e_t.mul_(torch.add(column_t[part.i], row_t[part.j], out=factor))
            slope = e_s.sub_(e_t)
            gradient[part.i].addmm_(slope, part.s_j)
            gradient[part.new].addmm_(slope.mT[part.seen :], part.s_i)
    # Rounding must not make a divergence negative.
    return (moment / z_t + (z_s / z_t).log()).sum().clamp(min=0)


class _Tile(NamedTuple):
    """Rows i and columns j of the relations of tokens s_i and s_j.

    seen, new  how many columns lie in the square on the diagonal, which holds its own mirror image, and the others
    whole      (3, rows, columns): S_s, exp(S_t) and S_t
    block      the three of them
    """

    i: slice
    j: slice
    seen: int
    new: slice
    s_i: Tensor
    s_j: Tensor
    whole: Tensor
    block: tuple[Tensor, ...]


def _tiles(s: Tensor, t: Tensor, tile: tuple[int, int], keep: bool) -> Iterator[_Tile]:
    """The upper triangle in tiles. Each takes the memory of the one before, unless told to keep it."""
    length, used = len(s), 0
    memory = s.new_empty(3 * (length * (length + tile[0]) // 2 if keep else tile[0] * tile[1]))
    for i in _spans(0, length, tile[0]):
        s_i, t_i = s[i], t[i]
        for j in _spans(i.start, length, tile[1]):
            s_j, shape = s[j], (3, i.stop - i.start, j.stop - j.start)
            whole = memory[used : used + math.prod(shape)].view(shape)
            block = logits_s, e_t, logits_t = whole.unbind()
            torch.mm(s_i, s_j.mT, out=logits_s)
            torch.mm(t_i, t[j].mT, out=logits_t)
            torch.exp(logits_t, out=e_t)
            seen = max(0, i.stop - j.start)
            yield _Tile(i, j, seen, slice(j.start + seen, j.stop), s_i, s_j, whole, block)
            if keep:
                used += whole.numel()


def _by_rows(s: Tensor, t: Tensor, gradient: Tensor | None, rows: int) -> Tensor:
    """As `_by_tiles` for logits of any size: whole rows, from which the largest logit is subtracted."""
    loss = s.new_zeros(())
    for i in _spans(0, len(s), rows):
        log_s, log_t = (F.log_softmax(x[i] @ x.mT, dim=1) for x in (s, t))
        relation = log_t.exp()
        loss += log_t.sub_(log_s).mul_(relation).sum()
        if gradient is not None:
            slope = log_s.exp_().sub_(relation)
            gradient[i].addmm_(slope, s)
            gradient.addmm_(slope.mT, s[i])
    return loss


def _spans(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(k, min(k + size, stop)) for k in range(start, stop, size))
