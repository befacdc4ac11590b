"""The context loss of one image in tiles of relations, for the CPU and for whatever else PyTorch runs on."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations_with_replacement, cycle
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows and columns of one tile of relations: small enough for the caches, large enough for products at full speed.
SIDE = 256
# Up to this many relations of an image the tiles are kept from the first pass to the second rather than made again.
KEPT_RELATIONS = 1 << 20
# Up to this many elements the teacher's scaled features are held; of larger maps a block is scaled whenever it is used.
HELD_ELEMENTS = 1 << 20
# Largest sum of exponentials taken without subtracting the largest logit: far from float32's end at 3e38.
LARGEST_SUM = 1e30


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
    """Sum over i of KL(R_t[i] || R_s[i]), R = softmax(F^T F), F the features (C, L) times their scales (L,).

    Returns the sum and, if `differentiate`, its gradient by F_s. `side` is that of the tiles of R held at a time; up to
    `kept` relations, all are; up to `held` elements, F_t is. The result depends on the three only through rounding.
    """
    length = s.shape[1]
    if not length:
        return s.new_zeros(()), s.clone() if differentiate else None
    side = min(side, length)
    t_blocks = _blocks(t, t_scale, side)

    def t_block(k: int) -> Tensor:
        return torch.mul(*t_blocks[k])

    if t.numel() <= held:
        t_block = cache(t_block)
    tiles = _Tiles([x * scale for x, scale in _blocks(s, s_scale, side)], t_block, length**2 <= kept)
    sums = _sums(tiles)
    if not bool((sums[:2] < LARGEST_SUM).all()):  # so, too, with a NaN
        del tiles
        return _by_rows(s * s_scale, t * t_scale, differentiate, max(1, side**2 // length))
    z_s, z_t, moment = sums
    # Rounding must not make a divergence negative.
    loss = (moment / z_t + (z_s / z_t).log()).sum().clamp(min=0)
    if not differentiate:
        return loss, None
    gradient = _gradient_blocks(tiles, sums[:2])
    del tiles  # room for what follows
    return loss, torch.cat(gradient, dim=1)


def _blocks(x: Tensor, scale: Tensor, side: int) -> list[tuple[Tensor, Tensor]]:
    """Features (C, side) and scales (side,) of each block of pixels."""
    return list(zip(x.split(side, dim=1), scale.split(side), strict=True))


def _sums(tiles: "_Tiles") -> Tensor:
    """Row by row the sums of E_s, of E_t and of E_t (S_t - S_s), (3, L); leaves E = exp(S) in the tiles.

    E is taken without a shift and symmetric like S, so one pass over the upper triangle gives them, and with them
    KL_i = sum_j E_t (S_t - S_s) / Z_t + log(Z_s / Z_t) for the sums Z.
    """
    sums = [block.new_zeros(3, block.shape[1]) for block in tiles.s]
    for i, j, room in tiles.with_logits():
        torch.sub(room.of_t, room.of_s, out=room.moment)
        room.both.exp_()
        room.moment.mul_(room.of_t)
        sums[i].add_(room.all.sum(2))
        if j > i:  # the mirror image
            sums[j].add_(room.all.sum(1))
    return torch.cat(sums, dim=1)


def _gradient_blocks(tiles: "_Tiles", sums: Tensor) -> list[Tensor]:
    """F M in blocks, M_ij = E_s (1 / Z_s[i] + 1 / Z_s[j]) - E_t (1 / Z_t[i] + 1 / Z_t[j]), for the sums Z (2, L)."""
    weights = sums.reciprocal()
    weights[1].neg_()
    side = tiles.s[0].shape[1]
    of_rows = weights.unsqueeze(2).split(side, dim=1)
    of_columns = weights.unsqueeze(1).split(side, dim=2)
    gradient = [torch.zeros_like(block) for block in tiles.s]
    for i, j, room in tiles.with_exponentials():
        torch.add(of_rows[i], of_columns[j], out=room.weights)
        room.slope.mul_(room.of_s).addcmul_(room.weight_t, room.of_t)
        gradient[i].addmm_(tiles.s[j], room.slope_across)
        if j > i:
            gradient[j].addmm_(tiles.s[i], room.slope)
    return gradient


class _Room(NamedTuple):
    """Views of the memory that one tile uses, made once, since making them takes time, too.

    all           (3, rows, columns), the next three
    of_s, of_t    logits, then their exponentials
    moment        (rows, columns)
    both          (2, rows, columns), of_s and of_t
    weights       (2, rows, columns), the next two, shared by all tiles
    slope         (rows, columns), at first the weights of of_s
    weight_t      (rows, columns)
    slope_across  (columns, rows), slope transposed
    """

    all: Tensor
    of_s: Tensor
    of_t: Tensor
    moment: Tensor
    both: Tensor
    weights: Tensor
    slope: Tensor
    weight_t: Tensor
    slope_across: Tensor


def _rooms(like: Tensor, shapes: list[tuple[int, int]], keep: bool) -> list[_Room]:
    """A room for each shape in turn: with `keep` one of its own, otherwise the same for all of its shape."""
    weights = like.new_empty(2, *shapes[0])  # no other is larger
    rooms = {}
    for shape, count in Counter(shapes).items():
        memory = like.new_empty(count if keep else 1, 3, *shape)
        parts = (part.unbind() for part in (memory, *memory.unbind(1), memory[:, :2]))
        here = weights[:, : shape[0], : shape[1]]
        rooms[shape] = cycle(
            [
                _Room(every, of_s, of_t, moment, both, here, here[0], here[1], here[0].mT)
                for every, of_s, of_t, moment, both in zip(*parts, strict=True)
            ]
        )
    return [next(rooms[shape]) for shape in shapes]


class _Tiles:
    """The upper triangle of S_s and S_t in square tiles, row by row, each in the memory of the one before.

    With `keep` each has memory of its own, and the second pass over them finds there what the first one left.
    """

    def __init__(self, s: list[Tensor], t_block: Callable[[int], Tensor], keep: bool):
        self.s, self._t_block, self._keep = s, t_block, keep
        self._s_across = [block.mT for block in s]
        pairs = list(combinations_with_replacement(range(len(s)), 2))
        shapes = [(s[i].shape[1], s[j].shape[1]) for i, j in pairs]
        self._tiles = [(*pair, room) for pair, room in zip(pairs, _rooms(s[0], shapes, keep), strict=True)]

    def with_logits(self) -> Iterator[tuple[int, int, _Room]]:
        """Blocks i and j of rows and columns, and their room with logits in `of_s` and `of_t`."""
        for i, j, room in self._tiles:
            torch.mm(self._s_across[i], self.s[j], out=room.of_s)
            t_j = self._t_block(j)
            if j == i:  # where each row of tiles begins
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


def _by_rows(s: Tensor, t: Tensor, differentiate: bool, rows: int) -> tuple[Tensor, Tensor | None]:
    """The loss and its gradient for logits of any size: whole rows, from which the largest logit is subtracted."""
    loss = s.new_zeros(())
    gradient = torch.zeros_like(s) if differentiate else None
    for k in range(0, s.shape[1], rows):
        i = slice(k, k + rows)
        log_s, log_t = (F.log_softmax(x[:, i].mT @ x, dim=1) for x in (s, t))
        relation = log_t.exp()
        loss += log_t.sub_(log_s).mul_(relation).sum()
        if gradient is not None:
            slope = log_s.exp_().sub_(relation)
            gradient[:, i].addmm_(s, slope.mT)
            gradient.addmm_(s[:, i], slope)
    return loss, gradient
