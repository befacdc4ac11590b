"""8-connected components of a label map, of all classes in one pass over runs of pixels."""

from typing import NamedTuple

import numpy as np

from bcd.metrics.boundary import NONE


class Components(NamedTuple):
    """Runs of equal ids and the components they make; positions are flat indices into `framed(ids)`.

    Attributes:
        run_at: int32 (positions,), the run at each position.
        start: intp (N,), the first position of each run, ascending.
        component: intp (N,), the component of each run; no meaning for runs of `NONE`.
        first: intp (K,), the first run of each component, ascending.
        area: int64 (K,), in pixels.
    """

    run_at: np.ndarray
    start: np.ndarray
    component: np.ndarray
    first: np.ndarray
    area: np.ndarray


def framed(ids: np.ndarray) -> np.ndarray:
    """The uint8 map (H, W) in one row, with `NONE` before each of its rows and in a row above and below.

    So each pixel has all neighbours, and no run goes on in the next row.
    """
    height, width = ids.shape
    frame = np.full((height + 2, width + 1), NONE, np.uint8)
    frame[1:-1, 1:] = ids
    return frame.ravel()


def components(flat: np.ndarray, stride: int) -> Components:
    """The components of a map as `framed` gives it; `stride` is the map's width + 1."""
    begins = np.append(True, flat[1:] != flat[:-1])
    start = np.flatnonzero(begins)
    run_at = np.cumsum(begins, dtype=np.int32)
    run_at -= 1
    length = np.diff(start, append=flat.size)
    inside = np.flatnonzero(flat[start] != NONE)
    root = _roots(np.arange(start.size), *_touching(flat, stride, start, length, inside, run_at))
    first = inside[root[inside] == inside]
    number = np.zeros(start.size, np.intp)
    number[first] = np.arange(first.size)
    component = number[root]
    area = np.bincount(component[inside], length[inside], minlength=first.size).astype(np.int64)
    return Components(run_at, start, component, first, area)


Edges = tuple[np.ndarray, np.ndarray]


def _touching(
    flat: np.ndarray, stride: int, start: np.ndarray, length: np.ndarray, inside: np.ndarray, run_at: np.ndarray
) -> tuple[Edges, Edges]:
    """Pairs (lower, upper) of runs of one id that share an edge or a corner, each once.

    The first pairs have each lower run at most once, the second pairs are the others.
    """
    begin = start[inside]
    last = begin + length[inside] - 1
    ids = flat[begin]
    over, under, corner = begin - stride, begin + stride, last - stride + 1
    # A pair is found where its overlap begins, which is where one of the two does, or at the corner that they share.
    above = flat[over] == ids
    left = ~above & (flat[over - 1] == ids)
    right = np.flatnonzero((flat[corner] == ids) & (flat[corner - 1] != ids))
    below = np.flatnonzero((flat[under] == ids) & (flat[under - 1] == ids))
    once = np.flatnonzero(above | left)
    lower = np.concatenate([inside[right], run_at[under[below]]])
    upper = np.concatenate([run_at[corner[right]], inside[below]])
    return (inside[once], run_at[over[once] - left[once]]), (lower, upper)


def _roots(parent: np.ndarray, once: Edges, others: Edges) -> np.ndarray:
    """For each node the smallest one that it is connected to; `parent` is 0..N-1, every edge is (lower, upper).

    Each root is hooked to its smallest neighbour, and paths are made flat, until no edge joins two roots.
    """
    parent[once[0]] = once[1]
    a, b = others
    while True:
        while not np.array_equal(grand := parent[parent], parent):
            parent = grand
        a, b = parent[a], parent[b]
        differ = np.flatnonzero(a != b)
        if not differ.size:
            return parent
        a, b = a[differ], b[differ]
        a, b = np.maximum(a, b), np.minimum(a, b)
        np.minimum.at(parent, a, b)
