"""PASCAL VOC 2012, its training images augmented by SBD.

Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2015, in the layout of
http://host.robots.ox.ac.uk/pascal/VOC/voc2012/: a mask is a palette PNG, 0 background, 1..20 the objects, 255 the
contours and what is too hard. Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011, label further
images of VOC: dataset/cls/<name>.mat of benchmark.tgz, the same numbers without contours.

The augmented training list is the custom since DeepLab: VOC's train, and what SBD labels of train and val, without the
images of VOC's val. As in mmsegmentation (tools/dataset_converters/voc_aug.py and its config), an image that both
label has VOC's mask.
"""

import numpy as np

from bcd.data import decode, tree
from bcd.label import IGNORE

SPLITS = ("train", "val")
VOC = "VOCdevkit/VOC2012"
SBD = "benchmark_RELEASE/dataset"
TABLE = decode.label_table({IGNORE: IGNORE} | {value: value for value in range(21)})


def samples(files: tree.Tree, split: str) -> list[tree.Sample]:
    """Samples of `split` ("train" or "val"): VOC's in the order of its list, then SBD's.

    Raises UserError when a listed file is missing.
    """
    names = _listed(files, split)
    masks = {name: f"{VOC}/SegmentationClass/{name}.png" for name in names}
    if split == "train" and any(path.startswith(SBD) for path in files.paths):
        more = [name for part in SPLITS for name in tree.listed(files, f"{SBD}/{part}.txt")]
        held_out = set(_listed(files, "val"))
        masks |= {name: f"{SBD}/cls/{name}.mat" for name in more if name not in held_out and name not in masks}
    return tree.complete(
        files, [tree.Sample(name, f"{VOC}/JPEGImages/{name}.jpg", mask) for name, mask in masks.items()]
    )


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode a mask of VOC (.png) or SBD (.mat) to uint8 (H, W): 0 background, 1..20 objects, 255 ignore.

    Raises UserError naming `name` for other values and for data that is not a mask.
    """
    sbd = name.endswith(".mat")
    label = decode.read_mat(data, name, "GTcls", "Segmentation") if sbd else decode.read_label(data, name)
    return decode.look_up(label, TABLE, name)


def _listed(files: tree.Tree, split: str) -> list[str]:
    return tree.listed(files, f"{VOC}/ImageSets/Segmentation/{split}.txt")
