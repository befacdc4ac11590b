"""COCO 2017 in its official layout: annotations/instances_{train,val}2017.json, train2017/ and val2017/.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; https://cocodataset.org/#download. The files of the
test split have no annotations, so the customary test images are those of `val`.
"""

from pathlib import Path

from bcd.data import annotations
from bcd.errors import UserError

SPLITS = ("train", "val")


def annotation_file(split: str) -> str:
    """Path, below the dataset's folder, of the annotations of `split` ("train" or "val")."""
    return f"annotations/instances_{split}2017.json"


def image_path(split: str, file_name: str) -> str:
    """Path, below the dataset's folder, of the image that the annotations of `split` call `file_name`."""
    return f"{split}2017/{file_name}"


def count_splits(root: Path) -> dict[str, int]:
    """Number of images per split of a freshly unpacked tree.

    Raises UserError when an annotation file or one of its images is missing. What the annotations say is checked when
    a split is opened, since that depends on the classes and on the annotations that are left out.
    """
    return {split: _count(root, split) for split in SPLITS}


def _count(root: Path, split: str) -> int:
    where = annotation_file(split)
    try:
        text = (root / where).read_bytes()
    except FileNotFoundError:
        raise UserError(f"the archives of coco have no {where}; check their URLs or mirror") from None
    images = annotations.load(text, where)["images"]
    for image in images:
        path = image_path(split, image["file_name"])
        if not (root / path).is_file():
            raise UserError(f"image {path} of {where} is missing; check the archives' URLs or mirror")
    return len(images)
