"""COCO 2017 in its official layout: annotations/instances_{train,val}2017.json, train2017/ and val2017/.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; https://cocodataset.org/#download. The files of the
test split have no annotations, so the customary test images are those of `val`.
"""

from bcd.data import tree
from bcd.data.objects import annotations
from bcd.errors import UserError

SPLITS = ("train", "val")


def annotation_file(split: str) -> str:
    """Path, below the dataset's folder, of the annotations of `split` ("train" or "val")."""
    return f"annotations/instances_{split}2017.json"


def image_path(split: str, file_name: str) -> str:
    """Path, below the dataset's folder, of the image that the annotations of `split` call `file_name`."""
    return f"{split}2017/{file_name}"


def samples(files: tree.Tree, split: str) -> list[tree.Sample]:
    """The images of `split` ("train" or "val"), in the order of its annotation file, which is the label of each.

    Raises UserError when the annotation file or an image is missing. What the annotations say is checked when a split
    is opened, since that depends on the classes and on the annotations that are left out.
    """
    where = annotation_file(split)
    if where not in files.paths:
        raise UserError(f"the archives of coco have no {where}; {tree.REMEDY}")
    listed = [image["file_name"] for image in annotations.load(files.read(where), where)["images"]]
    return tree.complete(files, [tree.Sample(name, image_path(split, name), where) for name in listed])
