"""COCO-Stuff 164K: the images of COCO 2017 and stuffthingmaps_trainval2017.zip, unpacked into one directory.

https://github.com/nightrome/cocostuff. A mask is a grey PNG that stores a label minus 1, and 255 for unlabelled pixels;
the labels are those of `bcd.data.formats._cocostuff_labels`.
"""

import numpy as np

from bcd.data import decode, tree
from bcd.data.formats._cocostuff_labels import LABELS
from bcd.label import IGNORE

SPLITS = ("train", "val")
TABLE = decode.label_table({IGNORE: IGNORE} | {label - 1: n for n, label in enumerate(LABELS)})


def samples(files: tree.Tree, split: str) -> list[tree.Sample]:
    """Samples of `split` ("train" or "val"), in the order of their ids.

    Raises UserError when an image or a mask lacks the other.
    """
    return tree.paired(files, (f"{split}2017/", ".jpg"), (f"{split}2017/", ".png"))


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode a mask to uint8 (H, W) with classes 0..170 and 255 = ignore.

    Raises UserError naming `name` for labels without a class and for data that is not a mask.
    """
    return decode.look_up(decode.read_label(data, name), TABLE, name)
