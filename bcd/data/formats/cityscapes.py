"""Cityscapes, fine annotations: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, as unpacked.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016,
https://www.cityscapes-dataset.com. A mask is *_gtFine_labelIds.png with ids 0..33, of which 19 are evaluated; they get
their "train ids" (cityscapesscripts/helpers/labels.py in mcordts/cityscapesScripts). The labels of the test split are
not public.
"""

import numpy as np

from bcd.data import decode, tree
from bcd.label import IGNORE

SPLITS = ("train", "val")
EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the 19 classes, in the order of their train ids."""
LAST = 33
TABLE = decode.label_table(dict.fromkeys(range(LAST + 1), IGNORE) | {value: n for n, value in enumerate(EVALUATED)})


def samples(files: tree.Tree, split: str) -> list[tree.Sample]:
    """Samples of `split` ("train" or "val"), by city and frame.

    Raises UserError when an image or a mask lacks the other.
    """
    images = (f"leftImg8bit/{split}/", "_leftImg8bit.png")
    return tree.paired(files, images, (f"gtFine/{split}/", "_gtFine_labelIds.png"))


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode a mask of label ids to uint8 (H, W) with the 19 train ids and 255 for every other id.

    Raises UserError naming `name` for ids above 33 and for data that is not a mask.
    """
    return decode.look_up(decode.read_label(data, name), TABLE, name)
