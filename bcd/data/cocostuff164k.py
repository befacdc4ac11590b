"""COCO-Stuff 164K: the images of COCO 2017 and stuffthingmaps_trainval2017.zip, unpacked into one directory.

https://github.com/nightrome/cocostuff. A mask is a grey PNG that stores a label (see `bcd.data.cocostuff`) minus 1, and
255 for unlabelled pixels.
"""

from pathlib import Path

import numpy as np

from bcd.data import decode, tree
from bcd.data.cocostuff import LABELS
from bcd.data.sample import Sample
from bcd.label import IGNORE

SPLITS = ("train", "val")
TABLE = decode.label_table({IGNORE: IGNORE} | {label - 1: n for n, label in enumerate(LABELS)})


def list_samples(root: Path, split: str) -> list[Sample]:
    """Samples of `split` ("train" or "val") of a fetched dataset, in the order of their ids.

    Raises UserError when the dataset is not fetched, or an image or a mask lacks the other.
    """
    return _samples(tree.recorded(root), split)


def count_splits(root: Path) -> dict[str, int]:
    """Number of samples per split of a freshly unpacked directory, checked as `list_samples` checks them."""
    files = tree.unpacked(root)
    return {split: len(_samples(files, split)) for split in SPLITS}


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode a mask to uint8 (H, W) with classes 0..170 and 255 = ignore.

    Raises UserError naming `name` for labels without a class and for data that is not a mask.
    """
    return decode.look_up(decode.read_label(data, name), TABLE, name)


def _samples(files: tree.Tree, split: str) -> list[Sample]:
    return tree.paired(files, (f"{split}2017/", ".jpg"), (f"{split}2017/", ".png"))
