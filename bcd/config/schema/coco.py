"""Own images with objects, described instead of programmed: what `format: coco` is told."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import eq

from pydantic import Field, model_validator

from bcd.config.schema.splitting import SPLIT, Pattern, Splitting


class Coco(Splitting):
    """Where own images and the COCO files of their objects lie, and how they are split.

    Paths are relative to the dataset's `folder`, or to the root of its archives. One of three ways splits the images:
    `{split}` in `annotations`, `lists`, or `fractions`.
    """

    images: Pattern
    """The folder of the images; a `file_name` may have folders in front that are not there, or lack some that are."""
    annotations: Pattern
    """A COCO file such as `annotations/{split}.json`; or labelme's file of each image, such as `photos/*.json`."""
    crowds: bool = Field(default=True, exclude_if=partial(eq, True))
    """Whether iscrowd 1 marks a group, as in COCO; some tools write it for every mask that was painted."""

    @model_validator(mode="after")
    def _fits(self) -> Coco:
        self.require_one_way(self.annotations, "annotations")
        if "*" in self.images:
            raise ValueError(f"images is '{self.images}'; write a folder, as the annotations name the files in it")
        if SPLIT in self.images and SPLIT not in self.annotations:
            raise ValueError(f"images has {SPLIT}, and annotations has not; both have it where folders are the splits")
        if not self.annotations.endswith(".json"):
            raise ValueError(f"annotations is '{self.annotations}'; write the path of a JSON file")
        return self

    def require_fit(self, splits: Sequence[str]) -> None:
        """Raise ValueError unless each split has its images."""
        self.require_splits(splits, "coco")
