"""How own images are split, where an entry of params/datasets.yaml describes its files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from operator import not_
from typing import Annotated

from pydantic import AfterValidator, Field

from bcd.config.ranges import Positive, Whole
from bcd.config.schema.base import Inside, Name, Strict, require_inside

SPLIT = "{split}"  # in a path: the name of a split, or what `folders` has for it


def _pattern(path: str) -> str:
    if path.count("*") > 1 or re.search(r"[{}]", path.replace(SPLIT, "")):
        raise ValueError(
            f"'{path}' is no pattern; write a folder, or a path with one * for what image and mask have in common, and "
            f"{SPLIT} where the split stands"
        )
    return require_inside(path)


Pattern = Annotated[str, AfterValidator(_pattern)]


class Splitting(Strict):
    """One of three ways: `{split}` in a path, `lists`, or `fractions`."""

    folders: dict[Name, Inside] = Field(default={}, exclude_if=not_)
    """Split -> what `{split}` stands for in paths; the name of the split, if it is missing."""
    lists: str = Field(default="", exclude_if=not_)
    """A text file of each split, such as `lists/{split}.txt`, with the name of one image a line, without suffix."""
    fractions: dict[Name, Positive] = Field(default={}, exclude_if=not_)
    """Split -> its share of the images; the shares add up to 1, and chance decides by the names of the images."""
    seed: Whole = Field(default=0, exclude_if=not_)
    """Another number is another split by `fractions`."""

    def at(self, pattern: str, split: str) -> str:
        """A path with what `{split}` stands for."""
        return pattern.replace(SPLIT, self.folders.get(split, split))

    def require_one_way(self, path: str, field: str) -> None:
        """Raise ValueError unless one way splits; `path` is that of `field`, in which `{split}` may stand."""
        if sum(map(bool, (SPLIT in path, self.lists, self.fractions))) != 1:
            raise ValueError(f"the images are split by {SPLIT} in {field}, by lists or by fractions; say one of these")
        if self.folders and SPLIT not in path:
            raise ValueError(f"folders says what {SPLIT} stands for, which {field} has not")
        if self.lists and (SPLIT not in self.lists or require_inside(self.lists) != self.lists):
            raise ValueError(f"lists is '{self.lists}'; write {SPLIT} where the name of the split stands")
        if self.fractions and not math.isclose(math.fsum(self.fractions.values()), 1):
            raise ValueError(f"fractions add up to {math.fsum(self.fractions.values()):g}; make it 1")

    def require_splits(self, splits: Sequence[str], block: str) -> None:
        """Raise ValueError for splits that the dataset has not, or that get no share; `block`: the key of all this."""
        if strange := next((split for split in self.folders if split not in splits), None):
            raise ValueError(f"{block}.folders has '{strange}', which splits has not; correct one of them")
        if self.fractions and set(self.fractions) != set(splits):
            raise ValueError(
                f"{block}.fractions has {', '.join(sorted(self.fractions))}, and splits has "
                f"{', '.join(sorted(splits))}; give both the same names"
            )
