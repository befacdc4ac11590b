"""Own images with masks: the entry of params/datasets.yaml says where they lie, `bcd.config.schema.masks.Masks`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from bcd.config.schema.data import Dataset, DataUse
from bcd.config.schema.masks import Masks
from bcd.config.schema.splitting import SPLIT
from bcd.data import decode, tree
from bcd.data.formats._described import PARAMS, chosen, common, list_files
from bcd.errors import UserError
from bcd.label import IGNORE

Table = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Reader:
    """What the other formats offer as a module, for the splits and the classes of one dataset."""

    layout: Masks
    classes: tuple[str, ...]
    SPLITS: tuple[str, ...]

    def samples(self, files: tree.Tree, split: str) -> list[tree.Sample]:
        """The samples of a split: in the order of its list, else by name.

        Raises UserError for a split without images, an image without its mask, a mask without its image, two files of
        one name, and a list that is empty or names what is no image.
        """
        images, masks = self._images(files, split), self._masks(files, split)
        if not images:
            where = self.layout.at(self.layout.images, split)
            raise UserError(
                f"no image of the split '{split}' is at {where}; correct masks.images {PARAMS}, or put images there"
            )
        keys = chosen(files, self.layout, split, images, block="masks", where=self.layout.images)
        if not self.layout.lists:
            self._require_images(files, split, masks)
        if lacking := [images[key] for key in keys if key not in masks]:
            where = self.layout.at(self.layout.masks, split)
            raise UserError(
                f"no mask is at {where} for the image {_first(lacking)} of the split '{split}'; add masks, take such "
                f"images away, or correct masks.masks {PARAMS}"
            )
        return [tree.Sample(PurePosixPath(key).name, images[key], masks[key]) for key in keys]

    def files(self, files: tree.Tree) -> set[str]:
        """The paths that are used: images and masks of the splits, and their lists; raises what `samples` raises."""
        samples = [sample for split in self.SPLITS for sample in self.samples(files, split)]
        return list_files(self.layout, self.SPLITS) | {
            path for sample in samples for path in (sample.image, sample.label)
        }

    def read_label(self, data: bytes, name: str) -> np.ndarray:
        """Decode a mask to uint8 (H, W): class ids from 0, and 255 where a pixel is ignored.

        Raises UserError naming `name` for a value without a class, and for data that is no 8-bit mask of its kind.
        """
        stored = packed(decode.read_colours(data, name)) if self.layout.colours else decode.read_label(data, name)
        known, ids = self._table
        places = np.minimum(np.searchsorted(known, stored), len(known) - 1)
        strange = stored[known[places] != stored]
        if strange.size:
            value = int(strange[0])
            what = f"colour {value >> 16} {value >> 8 & 255} {value & 255}" if self.layout.colours else f"value {value}"
            raise UserError(
                f"mask {name} holds the {what}, which has no class; give it one in masks.values {PARAMS}, write it "
                "into masks.void if such pixels are ignored, or mend the mask"
            )
        return ids[places]

    @cached_property
    def _table(self) -> Table:
        """What masks may hold, packed and sorted: uint32 (K,); and the class of each: uint8 (K,)."""
        layout, count = self.layout, len(self.classes)
        if layout.values:
            classes = {_packed(stored): self.classes.index(name) for stored, name in layout.values.items()}
        elif layout.reduce_zero_label:
            classes = {number + 1: number for number in range(count)} | {0: IGNORE, IGNORE: IGNORE}
        else:
            classes = {number: number for number in range(count)} | {IGNORE: IGNORE}
        classes |= {_packed(stored): IGNORE for stored in layout.void}
        return np.array(sorted(classes), np.uint32), np.array([classes[key] for key in sorted(classes)], np.uint8)

    def _masks(self, files: tree.Tree, split: str) -> dict[str, str]:
        return _keyed(files.paths, self.layout.at(self.layout.masks, split), "masks.masks")

    def _images(self, files: tree.Tree, split: str) -> dict[str, str]:
        """Name -> path; what is a mask is no image, where both lie in one folder."""
        masks = set(self._masks(files, split).values())
        paths = (path for path in files.paths if path not in masks)
        return _keyed(paths, self.layout.at(self.layout.images, split), "masks.images")

    def _require_images(self, files: tree.Tree, split: str, masks: Mapping[str, str]) -> None:
        """Raise UserError for a mask without its image, or with several images."""
        apart = SPLIT in self.layout.masks or SPLIT not in self.layout.images
        owners = Counter(key for one in ((split,) if apart else self.SPLITS) for key in self._images(files, one))
        if lonely := [path for key, path in masks.items() if key not in owners]:
            where = self.layout.at(self.layout.images, split if apart else SPLIT)
            raise UserError(
                f"no image is at {where} for the mask {_first(lonely)}; add images, take such masks away, or correct "
                f"masks.images {PARAMS}"
            )
        if shared := next((masks[key] for key in masks if owners[key] > 1), None):
            raise UserError(
                f"the mask {shared} belongs to images of several splits; give each a mask, and write {SPLIT} into "
                f"masks.masks {PARAMS}"
            )


def reader(data: Dataset | DataUse) -> Reader:
    """What reads the files of a dataset that has `masks`."""
    assert data.masks is not None  # as params that are loaded, and the specs made of them, are checked
    return Reader(data.masks, tuple(data.classes), tuple(data.splits))


def packed(colours: np.ndarray) -> np.ndarray:
    """One number for each colour of uint8 (H, W, 3): uint32 (H, W), red x 65536 + green x 256 + blue."""
    red, green, blue = np.moveaxis(colours.astype(np.uint32), -1, 0)
    return (red << 16) | (green << 8) | blue


def _packed(stored: str) -> int:
    value = 0
    for number in stored.split():
        value = value << 8 | int(number)
    return value


def _keyed(paths: Iterable[str], pattern: str, field: str) -> dict[str, str]:
    """What image and mask have in common (in one Unicode form) -> path, of the files that a pattern names."""
    found: dict[str, str] = {}
    for path in paths:
        key = common(path, pattern)
        if key is None:
            continue
        if key in found:
            both = " and ".join(sorted((found[key], path)))
            raise UserError(
                f"{both} have one name, '{key}'; take one away, or write a pattern such as photos/*.jpg into {field} "
                f"{PARAMS}"
            )
        found[key] = path
    return found


def _first(paths: Sequence[str]) -> str:
    """The first path, and how many more there are."""
    return min(paths) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
