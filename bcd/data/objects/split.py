"""One split of a dataset as images and their objects: boxes, classes, masks. Needs no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bcd.config.schema.data import DataUse
from bcd.data import decode, tree
from bcd.data.formats import ObjectFormat, reader_of
from bcd.data.objects.annotations import Annotation, Image, Instances, Segmentation, fault, parse
from bcd.data.semantic.split import subset
from bcd.errors import UserError

SIZES = "correct the size there, or get both anew"
Read = Callable[[int], tuple[np.ndarray, "Objects", str]]


@dataclass
class Objects:
    """The k objects of one image, in the order of the annotation file.

    boxes        float32 (k, 4), corners x1 y1 x2 y2 in pixels
    classes      int64 (k,), 0..K-1
    crowd        bool (k,): a group that was not told apart; detectors do not learn it, evaluation ignores it
    segmentation k COCO encodings (see `bcd.data.objects.masks`), or None where nobody asked for them
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    segmentation: list[Segmentation] | None


@dataclass
class ObjectSplit:
    """The images of one split and their objects.

    truth     a COCO dict for evaluation, see `annotations.parse`; its categories are the class indices
    image_ids the images' ids in order
    annotated indices of the images with at least one object that is no crowd
    read      `read(i)` gives `(image, objects, name)`, checked: uint8 (H, W, 3) RGB, Objects, and the image's path
              below the dataset's folder
    """

    truth: Instances = field(repr=False)
    image_ids: list[int] = field(repr=False)
    annotated: list[int] = field(repr=False)
    read: Read = field(repr=False)

    def __len__(self) -> int:
        return len(self.image_ids)

    def lacking(self, name: str) -> str:
        """Why nothing can be learnt from the split, for one without an annotated image; `name`: what it is called."""
        crowds = len(self.truth["annotations"])
        if not crowds:
            return f"the split '{name}' has no objects; annotate some of its images"
        return (
            f"all {crowds} objects of the split '{name}' are crowds (iscrowd 1); crowds are not learnt: set iscrowd to "
            "0 for what is one object"
        )


def open_objects(root: Path, data: DataUse, split: str, *, masks: bool) -> ObjectSplit:
    """A split of the dataset in `root`; every file read is compared with the manifest.

    masks: whether segmentations are needed.

    Raises UserError for

    - a missing dataset, an empty split, and changed bytes
    - faulty annotations (see `annotations.parse`)
    - an image that is missing or of another size than its annotations
    - a `size` to resize the dataset to
    """
    return objects_of(tree.recorded(root), data, split, masks=masks)


def objects_of(files: tree.Tree, data: DataUse, split: str, *, masks: bool) -> ObjectSplit:
    """A split of a dataset's files; raises what `open_objects` raises."""
    if data.size:
        raise UserError(
            f"{files.dataset}: a dataset with a `size` is for segmentation; detectors resize by the recipe's `resize`"
        )
    reader: ObjectFormat = reader_of(data)
    where = reader.annotation_file(split)
    truth = parse(reader.instances(files, split), where, data.classes, skip=data.skip_annotations, masks=masks)
    truth["images"] = images = subset(truth["images"], data)
    used = {image["id"] for image in images}
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] in used]
    paths = [image["file_name"] for image in images]
    _check_images(files, images, paths, where)
    found: dict[int, list[Annotation]] = defaultdict(list)
    for entry in truth["annotations"]:
        found[entry["image_id"]].append(entry)

    def read(index: int) -> tuple[np.ndarray, Objects, str]:
        path, listed = paths[index], images[index]
        data = files.read(path)
        image = decode.read_image(data, path)
        if wrong := _other_size(listed, image.shape[:2], data, where):
            raise UserError(f"{wrong}; {SIZES}")
        return image, _objects(found.get(listed["id"], []), masks), path

    annotated = [n for n, image in enumerate(images) if any(not e["iscrowd"] for e in found.get(image["id"], []))]
    return ObjectSplit(truth, [image["id"] for image in images], annotated, read)


def exchanged(files: tree.Tree, use: DataUse, split: str) -> str:
    """What to say of an annotation file in which every image has its height for its width; "" of others.

    Looks at images until one is as stated or cannot be read. One with an orientation tag ends it, too: its annotations
    may be meant for the image as it is stored.
    """
    reader: ObjectFormat = reader_of(use)
    where, shown = reader.annotation_file(split), ""
    for image in reader.instances(files, split)["images"]:
        path = image["file_name"]
        if image["height"] == image["width"] or path not in files.paths:
            continue
        try:
            data = files.read(path)
            height, width, _ = decode.read_image(data, path).shape
        except UserError:
            return ""
        if (width, height) != (image["height"], image["width"]) or decode.orientation(data) > 1:
            return ""
        shown = shown or f"{path} is {height}x{width} (height x width), not {width}x{height}"
    return shown and f"{where}: `images` has height and width exchanged: {shown}; exchange them for each image"


def missized(files: tree.Tree, use: DataUse, split: str) -> str:
    """What to say of an image whose annotations are faulty since their file states another size; "" where none is.

    Its boxes would be blamed for what `width` and `height` are. Only headers of images with faults are read.
    """
    reader: ObjectFormat = reader_of(use)
    where, document = reader.annotation_file(split), reader.instances(files, split)
    images = {image["id"]: image for image in document["images"]}
    categories = {category["id"] for category in document["categories"]}
    faulty = {
        entry["image_id"]
        for entry in document["annotations"]
        if entry["id"] not in use.skip_annotations and fault(entry, images.get(entry["image_id"]), categories, False)
    }
    found = []
    for image in images.values():
        if image["id"] not in faulty or image["file_name"] not in files.paths:
            continue
        try:
            data = files.read(image["file_name"])
            found.append(_other_size(image, decode.shown_size(data, image["file_name"]), data, where))
        except UserError:  # an image that cannot be read says nothing about sizes
            continue
    wrong = [one for one in found if one]
    more = f", and {len(wrong) - 1} more of its images are of another size than it says" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more}; {SIZES}" if wrong else ""


def _other_size(listed: Image, size: tuple[int, ...], data: bytes, where: str) -> str:
    """How an image's size differs from what its annotation file states, a sentence's start; "" where it does not.

    size: height, width as it is read from `data`.
    """
    stated = (listed["height"], listed["width"])
    if size == stated:
        return ""
    return (
        f"{listed['file_name']} is {size[0]}x{size[1]} (height x width){decode.turned(data)}, but {where} says "
        f"{stated[0]}x{stated[1]}"
    )


def _check_images(files: tree.Tree, images: list[Image], paths: list[str], where: str) -> None:
    remedy = f"run `bcd fetch {files.dataset} --force`"
    if not images:
        raise UserError(f"{where} of {files.dataset} lists no images; {remedy}")
    for image, path in zip(images, paths, strict=True):
        if path not in files.paths:
            raise UserError(f"{where} lists image {image['id']}, but {path} of {files.dataset} is missing; {remedy}")


def _objects(entries: list[Annotation], masks: bool) -> Objects:
    boxes = np.array([entry["bbox"] for entry in entries], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Objects(
        boxes=boxes,
        classes=np.array([entry["category_id"] for entry in entries], np.int64),
        crowd=np.array([entry["iscrowd"] for entry in entries], bool),
        segmentation=[entry["segmentation"] for entry in entries] if masks else None,
    )
