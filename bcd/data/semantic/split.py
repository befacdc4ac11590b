"""One split of a dataset as arrays, whoever wants them: training, evaluation or a picture. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from bcd.config.schema.data import DataUse
from bcd.data import decode, tree
from bcd.data.formats import SemanticFormat, reader_of
from bcd.data.semantic.transforms import resize_pair
from bcd.errors import UserError

# Image uint8 (H, W, 3), label uint8 (H, W), name for messages.
Item = tuple[np.ndarray, np.ndarray, str]
Read = Callable[[int], Item]
Kind = TypeVar("Kind")


@dataclass
class Split:
    """The images of one split.

    `read(i)` gives `(image, label, name)`, checked and resized: uint8 (H, W, 3) RGB, uint8 (H, W) with
    255 = ignore, and a name for messages.
    """

    samples: list[tree.Sample]
    read: Read = field(repr=False)

    def __len__(self) -> int:
        return len(self.samples)


def open_split(root: Path, data: DataUse, split: str) -> Split:
    """A split of the dataset in `root`; every file read is compared with the manifest.

    Raises UserError for a missing dataset, an empty split, changed bytes, or a label that does not fit its image.
    """
    return split_of(tree.recorded(root), data, split)


def split_of(files: tree.Tree, data: DataUse, split: str) -> Split:
    """A split of a dataset's files; raises what `open_split` raises."""
    reader: SemanticFormat = reader_of(data)
    samples = reader.samples(files, split)
    if not samples:
        raise UserError(f"{files.dataset}: the split '{split}' is empty; run `bcd fetch {files.dataset} --force`")
    samples = subset(samples, data)

    def read(index: int) -> Item:
        sample = samples[index]
        photo = files.read(sample.image)
        image = decode.read_image(photo, sample.image)
        label = reader.read_label(files.read(sample.label), sample.label)
        turned = decode.turned(photo) if image.shape[:2] != label.shape else ""
        decode.check_pair(image, label, sample.label, len(data.classes), turned)
        if data.size:
            height, width = data.size
            image, label = resize_pair(image, label, (height, width))
        return image, label, sample.name

    return Split(samples, read)


def subset(samples: Sequence[Kind], data: DataUse) -> list[Kind]:
    """Those of a split's samples that are used: all, or as many as the dataset's `images`, evenly spaced."""
    wanted = min(data.images or len(samples), len(samples))
    return [samples[i] for i in evenly_spaced(len(samples), wanted)]


def evenly_spaced(total: int, count: int) -> list[int]:
    """`count` of the indices 0..total-1, evenly spaced, so that a subset of a video covers all of it."""
    return [int(i * total / count) for i in range(count)]
