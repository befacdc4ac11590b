"""PASCAL Context with its 59 most frequent classes: the images of VOC 2010 and the authors' trainval.tar.gz.

Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild", CVPR 2014,
https://cs.stanford.edu/~roozbeh/pascal-context/. trainval/<name>.mat holds LabelMap with the 459 labels of labels.txt,
numbered from 1; 59 of them are the classes and the others are ignored. As labels.txt is alphabetical, the order of the
classes is that of their names, and the one in which mmsegmentation converts them
(tools/dataset_converters/pascal_context.py).

The splits are those of VOC 2010: every image of ImageSets/Main/train.txt and val.txt has a label map. mmsegmentation
and the tables made with it use 4996 and 5104 images instead. Their list is that of the challenge "PASCAL in Detail",
which leaves out three (issue 1 of ccvl/detail-api). Its trainval_merged.json is no longer on the network.
"""

import numpy as np

from bcd.data import decode, tree
from bcd.errors import UserError
from bcd.label import IGNORE

SPLITS = ("train", "val")
VOC = "VOCdevkit/VOC2010"
NAMES = "labels.txt"
LABELS = {
    2: "aeroplane", 9: "bag", 18: "bed", 19: "bedclothes", 22: "bench", 23: "bicycle", 25: "bird", 31: "boat",
    33: "book", 34: "bottle", 44: "building", 45: "bus", 46: "cabinet", 59: "car", 65: "cat", 68: "ceiling",
    72: "chair", 80: "cloth", 85: "computer", 98: "cow", 104: "cup", 105: "curtain", 113: "dog", 115: "door",
    144: "fence", 158: "floor", 159: "flower", 162: "food", 187: "grass", 189: "ground", 207: "horse",
    220: "keyboard", 232: "light", 258: "motorbike", 259: "mountain", 260: "mouse", 284: "person", 295: "plate",
    296: "platform", 308: "pottedplant", 324: "road", 326: "rock", 347: "sheep", 349: "shelves", 354: "sidewalk",
    355: "sign", 360: "sky", 366: "snow", 368: "sofa", 397: "table", 415: "track", 416: "train", 420: "tree",
    424: "truck", 427: "tvmonitor", 440: "wall", 445: "water", 454: "window", 458: "wood",
}  # fmt: skip
"""Label of each class and its name in labels.txt."""
LAST = 459
TABLE = decode.label_table(dict.fromkeys(range(LAST + 1), IGNORE) | {label: n for n, label in enumerate(LABELS)})


def samples(files: tree.Tree, split: str) -> list[tree.Sample]:
    """Samples of `split` ("train" or "val"), in the order of VOC's list.

    Raises UserError when a listed file is missing, or labels.txt numbers a class
    in another way than LABELS.
    """
    _check_names(files)
    names = tree.listed(files, f"{VOC}/ImageSets/Main/{split}.txt")
    return tree.complete(
        files, [tree.Sample(name, f"{VOC}/JPEGImages/{name}.jpg", f"trainval/{name}.mat") for name in names]
    )


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode the label map of a .mat file to uint8 (H, W) with classes 0..58 and 255 = ignore.

    Raises UserError naming `name` for labels above 459 and for data that is not such a file.
    """
    return decode.look_up(decode.read_mat(data, name, "LabelMap"), TABLE, name)


def _check_names(files: tree.Tree) -> None:
    """Raise UserError unless labels.txt, lines of `number: name`, has the names of LABELS at their numbers."""
    if NAMES not in files.paths:
        raise UserError(f"the archives have no {NAMES}; {tree.REMEDY}")
    parts = (line.partition(":") for line in files.read(NAMES).decode().splitlines())
    found = {number.strip(): name.strip() for number, _, name in parts}
    for label, name in LABELS.items():
        if found.get(str(label)) != name:
            raise UserError(f"{NAMES} calls label {label} '{found.get(str(label), '')}', not '{name}'; {tree.REMEDY}")
