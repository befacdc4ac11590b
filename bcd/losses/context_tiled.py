"""The context loss of one image in tiles of relations, for the CPU and for whatever else PyTorch runs on."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows and columns of one tile of relations: small enough for the caches, large enough for products at full speed.
SIDE = 256
# Up to this many relations of an image the tiles are kept from the first pass to the second rather than made again.
KEPT_RELATIONS = 1 << 20
# Up to this many elements the teacher's scaled tokens are held; of larger maps a block is scaled whenever it is used.
HELD_ELEMENTS = 1 << 20
# Largest logit whose exponential is taken as it is: sums of exp(40) stay far from overflow, exp(-40) from underflow.
SAFE_LOGIT = 40.0


def tiled_self_relation_kl(
    s: Tensor,
    t: Tensor,
    s_scale: Tensor,
    t_scale: Tensor,
    *,
    differentiate: bool = True,
    side: int = SIDE,
    kept: int = KEPT_RELATIONS,
    held: int = HELD_ELEMENTS,
) -> tuple[Tensor, Tensor | None]:
    """Sum over i of KL(R_t[i] || R_s[i]), R = softmax(F F^T), F the tokens (L, C) times their scales (L,).

    Returns the sum and, if `differentiate`, its gradient by F_s. `side` is that of the tiles of R held at a time; up to
    `kept` relations, all are; up to `held` elements, F_t is. The result depends on the three only through rounding.
    """
    if not len(s):
        return s.new_zeros(()), s.clone() if differentiate else None
    largest = max((x.square().sum(1) * scale.square()).max() for x, scale in ((s, s_scale), (t, t_scale)))
    s = s.clone(memory_format=torch.contiguous_format).mul_(s_scale.unsqueeze(1))
    gradient = torch.zeros_like(s) if differentiate else None
    if largest > SAFE_LOGIT:
        return _by_rows(s, t * t_scale.unsqueeze(1), gradient, max(1, side**2 // len(s))), gradient
    side = min(side, len(s))
    tiles = _Tiles(s, _scaled_blocks(t, t_scale, side, t.numel() <= held), side, keep=len(s) ** 2 <= kept)
    return _by_tiles(tiles, gradient), gradient


def _scaled_blocks(t: Tensor, scale: Tensor, side: int, hold: bool) -> Callable[[int], Tensor]:
    """Block k of the scaled tokens, (C, side), as a function of k; made once or, for less memory, at every call."""
    blocks = list(zip(t.mT.split(side, dim=1), scale.split(side), strict=True))
    if hold:
        return [x * factor for x, factor in blocks].__getitem__
    return lambda k: torch.mul(*blocks[k])


def _by_tiles(tiles: "_Tiles", gradient: Tensor | None) -> Tensor:
    """The loss, adding its gradient to `gradient`; takes E = exp(S) without a shift, which needs small logits.

    E is symmetric like S, so one pass over the upper triangle gives the row sums Z, and with them
    KL_i = sum_j E_t (S_t - S_s) / Z_t + log(Z_s / Z_t).
    """
    sums = tiles.s.new_zeros(3, len(tiles.s))
    sums_of = sums.split(tiles.side, dim=1)
    for i, j, room in tiles.with_logits():
        torch.sub(room.of_t, room.of_s, out=room.moment)
        room.both.exp_()
        room.moment.mul_(room.of_t)
        sums_of[i].add_(room.all.sum(2))
        if j > i:  # the mirror image
            sums_of[j].add_(room.all.sum(1))
    z_s, z_t, moment = sums
    if gradient is not None:
        _add_gradient(gradient, tiles, sums[:2])
    # Rounding must not make a divergence negative.
    return (moment / z_t + (z_s / z_t).log()).sum().clamp(min=0)


def _add_gradient(gradient: Tensor, tiles: "_Tiles", sums: Tensor) -> None:
    """Adds M F, M_ij = E_s (1 / Z_s[i] + 1 / Z_s[j]) - E_t (1 / Z_t[i] + 1 / Z_t[j]), for the sums Z_s, Z_t (2, L)."""
    weights = sums.reciprocal()
    weights[1].neg_()
    of_rows = weights.unsqueeze(2).split(tiles.side, dim=1)
    of_columns = weights.unsqueeze(1).split(tiles.side, dim=2)
    gradient_of = gradient.split(tiles.side)
    for i, j, room in tiles.with_exponentials():
        torch.add(of_rows[i], of_columns[j], out=room.terms)
        room.terms.mul_(room.both)
        slope = room.term_s.add_(room.term_t)
        gradient_of[i].addmm_(slope, tiles.blocks[j])
        if j > i:
            gradient_of[j].addmm_(slope.mT, tiles.blocks[i])


class _Room(NamedTuple):
    """Views of the memory that one tile uses, made once, since making them takes time, too.

    all             (3, rows, columns), the next three
    of_s, of_t      logits, then their exponentials
    moment          (rows, columns)
    both            (2, rows, columns), of_s and of_t
    terms           (2, rows, columns), the next two, shared by all tiles
    term_s, term_t  (rows, columns)
    """

    all: Tensor
    of_s: Tensor
    of_t: Tensor
    moment: Tensor
    both: Tensor
    terms: Tensor
    term_s: Tensor
    term_t: Tensor


class _Tiles:
    """The upper triangle of S_s and S_t in square tiles, row by row, each in the memory of the one before.

    With `keep` each has memory of its own, and the second pass over them finds there what the first one left.
    """

    def __init__(self, s: Tensor, t_block: Callable[[int], Tensor], side: int, keep: bool):
        self.s, self.side, self._t_block, self._keep = s, side, t_block, keep
        self.blocks = s.split(side)
        self._s_across = [block.mT for block in self.blocks]
        pairs = list(combinations_with_replacement(range(len(self.blocks)), 2))
        memory = s.new_empty(len(pairs) if keep else 1, 3, side, side)
        shared = s.new_empty(2, side, side)

        @cache
        def room(k: int, rows: int, columns: int) -> _Room:
            own, terms = (x[:, :rows, :columns] for x in (memory[k], shared))
            return _Room(own, *own, own[:2], terms, *terms)

        lengths = [len(block) for block in self.blocks]
        self._tiles = [(i, j, room(k if keep else 0, lengths[i], lengths[j])) for k, (i, j) in enumerate(pairs)]

    def with_logits(self) -> Iterator[tuple[int, int, _Room]]:
        """Rows i and columns j in blocks of `side`, and their room with logits in `of_s` and `of_t`."""
        for i, j, room in self._tiles:
            torch.mm(self.blocks[i], self._s_across[j], out=room.of_s)
            t_j = self._t_block(j)
            if j == i:
                t_i = t_j.mT
            torch.mm(t_i, t_j, out=room.of_t)
            yield i, j, room

    def with_exponentials(self) -> Iterator[tuple[int, int, _Room]]:
        """The same with their exponentials, after a pass over `with_logits` that has taken them."""
        if self._keep:
            yield from self._tiles
            return
        for tile in self.with_logits():
            tile[2].both.exp_()
            yield tile


def _by_rows(s: Tensor, t: Tensor, gradient: Tensor | None, rows: int) -> Tensor:
    """The loss for logits of any size: whole rows, from which the largest logit is subtracted."""
    loss = s.new_zeros(())
    for k in range(0, len(s), rows):
        i = slice(k, k + rows)
        log_s, log_t = (F.log_softmax(x[i] @ x.mT, dim=1) for x in (s, t))
        relation = log_t.exp()
        loss += log_t.sub_(log_s).mul_(relation).sum()
        if gradient is not None:
            slope = log_s.exp_().sub_(relation)
            gradient[i].addmm_(slope, s)
            gradient.addmm_(slope.mT, s[i])
    return loss
