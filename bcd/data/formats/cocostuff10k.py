"""COCO-Stuff 10K, version 1.1: cocostuff-10k-v1.1.zip, as unpacked.

https://github.com/nightrome/cocostuff10k. annotations/<name>.mat holds the label map S: the labels of
`bcd.data.formats._cocostuff_labels`, and 0 for unlabelled pixels. It has two splits. Everyone evaluates on its
imageLists/test.txt, which is called `val` here, as that of the other datasets is.
"""

import numpy as np

from bcd.data import decode, tree
from bcd.data.formats._cocostuff_labels import LABELS
from bcd.label import IGNORE

SPLITS = {"train": "imageLists/train.txt", "val": "imageLists/test.txt"}
TABLE = decode.label_table({0: IGNORE} | {label: n for n, label in enumerate(LABELS)})


def samples(files: tree.Tree, split: str) -> list[tree.Sample]:
    """Samples of `split` ("train" or "val"), in the order of its list.

    Raises UserError when a listed file is missing.
    """
    names = tree.listed(files, SPLITS[split])
    return tree.complete(files, [tree.Sample(name, f"images/{name}.jpg", f"annotations/{name}.mat") for name in names])


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode the label map of a .mat file to uint8 (H, W) with classes 0..170 and 255 = ignore.

    Raises UserError naming `name` for labels without a class and for data that is not such a file.
    """
    return decode.look_up(decode.read_mat(data, name, "S"), TABLE, name)
