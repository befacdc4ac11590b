"""Own images with masks, described instead of programmed: what `format: masks` is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import not_
from typing import Annotated

from pydantic import Field, PlainValidator, model_validator

from bcd.config.schema.splitting import SPLIT, Pattern, Splitting


def _stored(value: object) -> str:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    numbers = [int(word) for word in text.split()] if re.fullmatch(r"[0-9]{1,3}( +[0-9]{1,3})*", text) else []
    if len(numbers) not in (1, 3) or max(numbers) > 255:
        raise ValueError(
            f"{value!r} is no value of a mask; write a number 0..255, or a colour as `128 64 128`: red, green and blue"
        )
    return " ".join(map(str, numbers))


Stored = Annotated[str, PlainValidator(_stored)]


class Masks(Splitting):
    """Where own images and masks lie, how they are split, and what the values of a mask mean.

    Paths are relative to the dataset's `folder`, or to the root of its archives. One of three ways splits the images:
    `{split}` in `images`, `lists`, or `fractions`.
    """

    images: Pattern
    """A folder of images, or a pattern such as `photos/*.jpg`; * may stand for subfolders, too."""
    masks: Pattern
    """The same for masks, such as `photos/*_mask.png`: an image and its mask have equal names, or an equal *."""
    values: dict[Stored, str] = Field(default={}, exclude_if=not_)
    """Stored value -> class: a number 0..255, or a colour as `128 64 128`; if missing, class ids, and 255 = ignore."""
    void: list[Stored] = Field(default=[], exclude_if=not_)
    """Stored values of pixels that are ignored; with `values` no other is."""
    reduce_zero_label: bool = Field(default=False, exclude_if=not_)
    """Whether 0 is ignored and n is class n - 1, as with mmsegmentation's option of this name."""

    @property
    def colours(self) -> bool:
        """Whether masks are read as colours, and not as numbers."""
        return any(" " in stored for stored in self.values)

    @model_validator(mode="after")
    def _fits(self) -> Masks:
        self.require_one_way(self.images, "images")
        if SPLIT in self.masks and SPLIT not in self.images:
            raise ValueError(f"masks has {SPLIT}, and images has not; both have it where folders are the splits")
        if self.images == self.masks:
            raise ValueError(f"images and masks are both '{self.images}'; write where the masks are")
        if self.values and self.reduce_zero_label:
            raise ValueError("values and reduce_zero_label both say what a mask holds; leave one of them out")
        if both := next((stored for stored in self.void if stored in self.values), None):
            raise ValueError(f"values has a class for {both}, and void has it, too; take it out of one of them")
        if len({" " in stored for stored in (*self.values, *self.void)} | {self.colours}) > 1:
            raise ValueError("values and void hold numbers and colours; masks are read as the one or as the other")
        return self

    def require_fit(self, classes: Sequence[str], splits: Sequence[str]) -> None:
        """Raise ValueError unless each class has a value, and each split its images."""
        if other := next((name for name in self.values.values() if name not in classes), None):
            raise ValueError(f"masks.values has the class '{other}', which classes has not; a class has one name in "
                             "both, and pixels that are ignored stand in masks.void")  # fmt: skip
        if lacking := next((name for name in classes if self.values and name not in self.values.values()), None):
            raise ValueError(f"masks.values has no value for the class '{lacking}'; add it, or take the class out")
        self.require_splits(splits, "masks")
