"""Classes of a weights file in another order or number than the dataset's: rows of its classifiers, chosen by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassRows:
    """How the first dimension of a classifier's tensors is made of classes: some anchors x classes x `each`.

    keys        a pattern of their names, of their end
    background  whether a row of no class stands `first` or `last`; empty where there is none
    each        values of a class, such as 4 of a box
    """

    keys: str
    background: str = ""
    each: int = 1


@dataclass(frozen=True)
class Renamed:
    """A state whose classifiers have our classes; where one of ours is not among theirs, `lacking` names it and the
    classifiers are left out."""

    state: dict[str, Tensor]
    lacking: str = ""


# Of segmentors, in our names and mmsegmentation's.
SEGMENTOR = (ClassRows(r"(head|aux|decode_head|auxiliary_head)\.(classifier|conv_seg)\.(weight|bias)"),)


def by_name(
    state: Mapping[str, Tensor], layout: Sequence[ClassRows], theirs: Sequence[str], ours: Sequence[str]
) -> Renamed:
    """`state` with the classes `ours` in the place of `theirs`; as it is where either is not known (empty).

    Names are equal if their letters and digits are, whatever their case. Classifiers of another number of classes than
    `theirs` stay as they are.
    """
    if not theirs or not ours:
        return Renamed(dict(state))
    known = {_letters(name): i for i, name in reversed(list(enumerate(theirs)))}
    lacking = next((name for name in ours if _letters(name) not in known), "")
    index = [known.get(_letters(name), 0) for name in ours]
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        rows = next((one for one in layout if re.search(rf"(^|\.){one.keys}$", key)), None)
        if rows is None or not _fits(tensor, rows, len(theirs)):
            found[key] = tensor
        elif not lacking:
            found[key] = _chosen(tensor, rows, index, len(theirs))
    return Renamed(found, lacking)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _fits(tensor: Tensor, rows: ClassRows, classes: int) -> bool:
    return tensor.ndim > 0 and len(tensor) > 0 and len(tensor) % ((classes + bool(rows.background)) * rows.each) == 0


def _chosen(tensor: Tensor, rows: ClassRows, index: list[int], classes: int) -> Tensor:
    if rows.background == "first":
        index = [0, *(i + 1 for i in index)]
    elif rows.background == "last":
        index = [*index, classes]
    split = tensor.unflatten(0, (-1, classes + bool(rows.background), rows.each))
    return split.index_select(1, torch.tensor(index)).flatten(0, 2)
