"""Datasets: where their files come from and how they are used."""

from __future__ import annotations

import re
from operator import not_
from typing import Annotated
from urllib.parse import urlsplit

from annotated_types import Len
from pydantic import AfterValidator, Field, model_validator

from bcd.config.ranges import Count, Whole
from bcd.config.schema.base import (
    Channels3,
    Inside,
    Name,
    Pixels,
    Side,
    Strict,
    TaskName,
    repeated,
    require_inside,
    require_name,
)
from bcd.config.schema.coco import Coco
from bcd.config.schema.masks import Masks
from bcd.errors import nearest

TRAIN = "train"  # the split that trains a model
VALIDATION = "val"  # the split that choices are made by
MOST_CLASSES = 255  # a label map has 8 bits, and 255 means: ignore


SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def plain_http(url: str) -> bool:
    """Whether anybody between here and there could change what is sent; nobody can on the way to this machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1")


def _hex(digits: int) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", value):
            raise ValueError(f"{value!r} is no such hash; write its {digits} digits 0-9 and a-f, or null")
        return value

    return AfterValidator(check)


class Archive(Strict):
    """One official download. Without a `url` the archive has to be in a mirror, or be put in place by hand."""

    archive: Inside
    """Its path in a mirror."""
    url: str | None
    """Where it is downloaded from; null for what stands behind a login."""
    bytes: Annotated[int, Field(ge=1, le=2**50)] | None = None
    """Its size; null when it was never published."""
    sha256: Annotated[str, _hex(64)] | None = None
    """Its hash; null when it was never published."""
    md5: Annotated[str, _hex(32)] | None = None
    """Its hash, where the authors publish no sha256."""
    keep: str | list[str] = ""
    """The folders or files of the archive that are unpacked; empty for all of it."""
    optional: bool = False
    """Whether a sample in a mirror may do without it."""

    @model_validator(mode="after")
    def _can_be_had(self) -> Archive:
        for path in [self.keep] if isinstance(self.keep, str) else self.keep:
            require_inside(path)
        if not self.archive.lower().endswith(SUFFIXES):
            raise ValueError(
                f"archive: '{self.archive}' is neither a zip nor a tar file ({', '.join(SUFFIXES)}); pack its files as "
                "one, and name that"
            )
        if self.url is not None and not re.match(r"https?://[^/\s]", self.url):
            raise ValueError(
                f"url: '{self.url}' is no address of the web; write null, and put the archive in place by hand or "
                "into a mirror"
            )
        if self.url and plain_http(self.url) and not (self.sha256 or self.md5):
            raise ValueError(
                f"url: '{self.url}' is plain http, so anybody on the way could send another file; write https, or pin "
                "the archive's sha256"
            )
        return self


class Generator(Strict):
    """How a generated dataset is drawn."""

    seed: Whole
    """Seed of the scenes."""
    size: Side
    """Height and width of an image in pixels."""


class Dataset(Strict):
    """A dataset, or a `variant_of` one: the same files with another size or fewer labels."""

    format: str
    """The label format: a module of `bcd/data/formats/`, by its name in FORMATS."""
    classes: Annotated[list[str], Len(1, MOST_CLASSES)]
    """Names of the classes, in the order of their ids 0, 1, ..."""
    splits: dict[Name, Count]
    """Split -> number of its images; one is called `train`."""
    licence: str
    """What may be done with the data; printed before anything is fetched."""
    source: str
    """Where the data comes from, for people."""
    archives: list[Archive] = []
    """What is downloaded and unpacked."""
    folder: str | None = Field(default=None, exclude_if=not_)
    """A folder of this machine whose files are copied, in the place of archives: own data."""
    masks: Masks | None = Field(default=None, exclude_if=not_)
    """How the images and masks of `format: masks` are found and read."""
    coco: Coco | None = Field(default=None, exclude_if=not_)
    """Where the images and the JSON of `format: coco` are; null for COCO's official layout."""
    generator: Generator | None = None
    """How it is drawn, for generated data."""
    files: str = ""
    """Set by `variant_of`: the dataset whose folder below data/ this one uses."""
    things: list[str] = []
    """The classes whose objects are detected; empty for all."""
    skip_annotations: list[int] = []
    """Ids of official annotations that are known to be faulty."""
    size: Pixels | None = None
    """Height and width that images are resized to when they are read, for segmentation."""
    images: Count | None = None
    """Use only so many of each split, evenly spaced; null for all."""
    labelled: Count | None = None
    """How many training images carry labels; null for all."""
    in_memory: bool = False
    """Whether decoded images are kept between epochs."""
    mean: Channels3 = [123.675, 116.28, 103.53]
    """Subtracted from an image's channels, in 0..255."""
    std: Channels3 = [58.395, 57.12, 57.375]
    """What the channels are divided by afterwards."""

    @model_validator(mode="after")
    def _fits(self) -> Dataset:
        if self.files:
            require_name(self.files)
        if self.folder is not None and (self.archives or self.generator or not self.folder.strip()):
            raise ValueError("folder is a path, and the only place that the files come from; leave one of them out")
        if self.masks:
            self.masks.require_fit(self.classes, list(self.splits))
        if self.coco:
            self.coco.require_fit(list(self.splits))
        for field in ("classes", "things"):
            if twice := repeated(getattr(self, field)):
                raise ValueError(f"{field} has '{twice}' twice; each class has a name of its own")
        if blank := next((name for name in self.classes if not name or name != name.strip()), None):
            raise ValueError(f"classes has {blank!r}; write a name without blanks around it")
        if unknown := next((thing for thing in self.things if thing not in self.classes), None):
            raise ValueError(f"things has '{unknown}', which is no class{nearest(unknown, self.classes)}")
        if TRAIN not in self.splits:
            raise ValueError("a split named 'train' is required among splits")
        training = min(self.images or self.splits[TRAIN], self.splits[TRAIN])
        if self.labelled and self.labelled > training:
            raise ValueError(f"labelled is {self.labelled}, more than the {training} training images")
        if 0 in self.std:
            raise ValueError("std has a 0, by which channels would be divided")
        return self

    def use(self, task: TaskName) -> DataUse:
        """How a run of that task uses the dataset; a detector's classes are the things."""
        fields = {"format", "splits", "masks", "coco", "size", "images", "labelled", "mean", "std"}
        shared = self.model_dump(include=fields)
        if task == "semantic":
            return DataUse(classes=self.classes, **shared)
        return DataUse(classes=self.things or self.classes, skip_annotations=self.skip_annotations, **shared)


class DataUse(Strict):
    """The part of a dataset that a run's result depends on, apart from its files."""

    format: str
    """As of `Dataset`."""
    classes: list[str]
    """For detectors the things, else all classes."""
    splits: dict[str, int]
    """As of `Dataset`."""
    masks: Masks | None = Field(default=None, exclude_if=not_)
    """As of `Dataset`."""
    coco: Coco | None = Field(default=None, exclude_if=not_)
    """As of `Dataset`."""
    size: Pixels | None = None
    """As of `Dataset`."""
    images: Count | None = None
    """As of `Dataset`."""
    labelled: Count | None = None
    """As of `Dataset`."""
    skip_annotations: list[int] = []
    """As of `Dataset`; for detectors only."""
    mean: Channels3
    """As of `Dataset`."""
    std: Channels3
    """As of `Dataset`."""
