"""ADE20K as the scene parsing benchmark SceneParse150: ADEChallengeData2016.zip, as unpacked.

Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017, http://sceneparsing.csail.mit.edu. A mask is a grey PNG,
0 for whatever is none of the 150 classes, which stand in objectInfo150.txt and are numbered from 1.
"""

import numpy as np

from bcd.data import decode, tree
from bcd.label import IGNORE

SPLITS = {"train": "training", "val": "validation"}
FOLDER = "ADEChallengeData2016"
COUNT = 150  # of classes
TABLE = decode.label_table({0: IGNORE} | {n + 1: n for n in range(COUNT)})


def samples(files: tree.Tree, split: str) -> list[tree.Sample]:
    """Samples of `split` ("train" or "val"), in the order of their numbers.

    Raises UserError when an image or a mask lacks the other.
    """
    folder = SPLITS[split]
    images = (f"{FOLDER}/images/{folder}/", ".jpg")
    return tree.paired(files, images, (f"{FOLDER}/annotations/{folder}/", ".png"))


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode a mask to uint8 (H, W) with classes 0..149 and 255 = ignore (stored as 0).

    Raises UserError naming `name` for values above 150 and for data that is not a mask.
    """
    return decode.look_up(decode.read_label(data, name), TABLE, name)
