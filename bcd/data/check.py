"""Every image and label of a dataset, looked at once before anything trains, by the code that training reads them with.

What would stop training or evaluation stops here. The rest is counted; `bcd.data.findings` says what of it is doubtful.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from itertools import count
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np

from bcd.config.schema.data import TRAIN, Dataset, DataUse
from bcd.data import decode, tree
from bcd.data.acquire.download import Progress, quiet
from bcd.data.formats import FORMATS, ObjectFormat, reader_of
from bcd.data.objects import masks
from bcd.data.objects.annotations import Annotation, Image
from bcd.data.objects.outlines import without_outline
from bcd.data.objects.split import ObjectSplit, exchanged, missized, objects_of
from bcd.data.semantic.split import split_of
from bcd.errors import UserError
from bcd.label import IGNORE

FAULTS = 10  # of them, listed before they are only counted
NAMED = 5  # classes whose ids a message names
OUTLINE = "draw it, take it out, or list its id under skip_annotations in params/datasets.yaml"
BLOCK = 64  # images that are handed to the threads at once
# Polygons and boxes are rounded. An area that is larger than its box by more, or that many times its mask's, is wrong.
ROUNDED, FACTOR = 1.01, 4
# COCO's sizes of objects: a small one is of fewer pixels than a square of 32, a large one of more than a square of 96.
SMALL, LARGE = 32**2, 96**2


class Labels(TypedDict):
    """Of a split's label maps: all pixels, the ignored ones, and of each class the images and the pixels."""

    pixels: int
    ignored: int
    classes: dict[str, list[int]]


class Things(TypedDict):
    """Of a split's objects: crowds, images with an object to learn, and of each class small, medium and large ones.

    masks: "", or why they cannot be used. areas: how many objects have an `area` that neither box nor mask can have.
    boxes: how many have a box elsewhere than their mask.
    """

    crowds: int
    annotated: int
    masks: str
    areas: int
    boxes: int
    classes: dict[str, list[int]]


class SplitCheck(TypedDict):
    """Of a split: images, the smallest and the largest height and width, and how many have an orientation tag.

    in_train: images that the split TRAIN has, too, by their bytes.
    """

    images: int
    height: list[int]
    width: list[int]
    turned: int
    in_train: NotRequired[int]
    labels: NotRequired[Labels]
    objects: NotRequired[Things]


class Seen(NamedTuple):
    """One image: height, width, whether it has an orientation tag, and how often each value is in its label map.

    digest: of the bytes of its file.
    """

    height: int
    width: int
    turned: bool
    values: np.ndarray
    digest: bytes


def check(
    files: tree.Tree, dataset: Dataset, counts: Mapping[str, int], progress: Progress = quiet
) -> dict[str, SplitCheck]:
    """Look at every image and label of the splits, of which `counts` has the samples; what is in each.

    Raises UserError listing the first faults and their number: whatever stops training or evaluation, and masks that
    hold nothing but one class and ignored pixels.
    """
    plain = dataset.model_copy(update={"size": None, "images": None, "labelled": None})
    tasks = [task for task in ("semantic", "detection") if task in FORMATS[dataset.format].tasks]
    total, done, faults = len(tasks) * sum(counts.values()), count(1), list[str]()
    found: dict[str, SplitCheck] = {}
    held: dict[str, set[bytes]] = {split: set() for split in counts}
    for split, images in counts.items():
        found[split] = {"images": 0, "height": [], "width": [], "turned": 0}
        for task in tasks if images else ():
            look = _labels if task == "semantic" else _objects
            try:
                step = partial(_step, progress, files.dataset, done, total)
                found[split] |= look(files, plain.use(task), split, faults, held[split], step)
            except UserError as error:  # of the split as a whole
                faults += [str(error)] if str(error) not in faults else []  # a wrong class is so in each
    for split in found.keys() - {TRAIN}:
        found[split]["in_train"] = len(held[split] & held.get(TRAIN, set()))
    if not faults and (one := _one_class(dataset, found)):
        faults.append(one)
    if faults:
        raise UserError(_listed(files.dataset, faults, "the folder" if dataset.folder else "the archives"))
    return found


def _step(progress: Progress, dataset: str, done: count, total: int) -> None:
    progress(f"check {dataset}", next(done), total)


def _labels(
    files: tree.Tree, use: DataUse, split: str, faults: list[str], held: set[bytes], step: Callable[[], None]
) -> SplitCheck:
    """The images and label maps of a split."""
    part = split_of(files, use, split)

    def see(index: int) -> Seen:
        label = part.read(index)[1]
        data = files.read(part.samples[index].image)
        height, width = label.shape
        values = np.bincount(label.ravel(), minlength=IGNORE + 1)
        return Seen(height, width, decode.orientation(data) > 1, values, sha256(data).digest())

    found: SplitCheck = {"images": 0, "height": [], "width": [], "turned": 0}
    pixels, images = np.zeros(IGNORE + 1, np.int64), np.zeros(IGNORE + 1, np.int64)
    for seen in _seen(see, len(part), faults, step):
        _count(found, seen, held)
        pixels += seen.values
        images += seen.values > 0
    classes = {name: [int(images[n]), int(pixels[n])] for n, name in enumerate(use.classes)}
    return found | {"labels": {"pixels": int(pixels.sum()), "ignored": int(pixels[IGNORE]), "classes": classes}}


def _objects(
    files: tree.Tree, use: DataUse, split: str, faults: list[str], held: set[bytes], step: Callable[[], None]
) -> SplitCheck:
    """The images and annotations of a split."""
    try:
        part, lacking = _opened(files, use, split)
    except UserError as error:  # boxes outside of their images, say
        raise UserError(exchanged(files, use, split) or missized(files, use, split) or str(error)) from None
    if split == TRAIN and not part.annotated:
        faults.append(part.lacking(split))

    def see(index: int) -> Seen:
        image, _, path = part.read(index)
        height, width, _ = image.shape
        data = files.read(path)
        return Seen(height, width, decode.orientation(data) > 1, np.zeros(0), sha256(data).digest())

    found: SplitCheck = {"images": 0, "height": [], "width": [], "turned": 0}
    unread = list[str]()
    for seen in _seen(see, len(part), unread, step):
        _count(found, seen, held)
    faults += [wrong] if unread and (wrong := exchanged(files, use, split)) else unread
    sizes = {name: [0, 0, 0] for name in use.classes}
    for entry in part.truth["annotations"]:
        if not entry["iscrowd"]:
            sizes[use.classes[entry["category_id"]]][(entry["area"] >= SMALL) + (entry["area"] > LARGE)] += 1
    image_of = {image["id"]: image for image in part.truth["images"]}
    crowds = sum(entry["iscrowd"] for entry in part.truth["annotations"])
    areas = sum(_doubtful(entry, image_of[entry["image_id"]]) for entry in part.truth["annotations"])
    boxes = sum(_beside(entry, image_of[entry["image_id"]]) for entry in part.truth["annotations"])
    objects: Things = {
        "crowds": crowds, "annotated": len(part.annotated), "masks": lacking, "areas": areas, "boxes": boxes,
        "classes": sizes,
    }  # fmt: skip
    return found | {"objects": objects}


def _beside(entry: Annotation, image: Image) -> bool:
    """Whether an object's box and mask are in different places: their boxes share less than half of both."""
    if entry["iscrowd"] or "segmentation" not in entry:
        return False
    drawn = masks.boxes([masks.run_length_code(entry["segmentation"], image["height"], image["width"])])[0]
    (x, y, width, height), (left, top, wide, high) = entry["bbox"], drawn.tolist()
    across = max(0.0, min(x + width, left + wide) - max(x, left))
    shared = across * max(0.0, min(y + height, top + high) - max(y, top))
    return bool(wide) and min(width, wide) > 2 and 2 * shared < width * height + wide * high - shared


def _doubtful(entry: Annotation, image: Image) -> bool:
    """Whether an object's area cannot be that of what is drawn; the rounding of small masks is no reason."""
    _, _, width, height = entry["bbox"]
    if entry["area"] > ROUNDED * width * height + 1:
        return True
    drawn = masks.area(entry["segmentation"], image["height"], image["width"]) if "segmentation" in entry else 0
    return drawn > FACTOR**2 and not drawn / FACTOR <= entry["area"] <= drawn * FACTOR


def _opened(files: tree.Tree, use: DataUse, split: str) -> tuple[ObjectSplit, str]:
    """The objects of a split, and why their masks cannot be used: detection does without them."""
    try:
        return objects_of(files, use, split, masks=True), ""
    except UserError as error:
        part = objects_of(files, use, split, masks=False)
        reader: ObjectFormat = reader_of(use)
        where = reader.annotation_file(split)
        bare = without_outline([(where, reader.instances(files, split))], use.skip_annotations)
        return part, f"{bare}; {OUTLINE}" if bare else str(error)


def _seen(see: Callable[[int], Seen], images: int, faults: list[str], step: Callable[[], None]) -> Iterator[Seen]:
    """What is seen of each image, in order, by as many threads as there are cores; what cannot be read is a fault."""

    def tried(index: int) -> Seen | UserError:
        try:
            return see(index)
        except UserError as error:
            return error

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for first in range(0, images, BLOCK):
            for one in pool.map(tried, range(first, min(first + BLOCK, images))):
                step()
                if isinstance(one, UserError):
                    faults.append(str(one))
                else:
                    yield one


def _count(found: SplitCheck, seen: Seen, held: set[bytes]) -> None:
    held.add(seen.digest)
    found["images"] += 1
    found["turned"] += seen.turned
    found["height"] = [min([*found["height"], seen.height]), max([*found["height"], seen.height])]
    found["width"] = [min([*found["width"], seen.width]), max([*found["width"], seen.width])]


def _one_class(dataset: Dataset, found: Mapping[str, SplitCheck]) -> str:
    """What to say of masks that hold one of several classes, and ignored pixels at most; "" for others."""
    labels = [one["labels"] for one in found.values() if "labels" in one]
    held = {name for one in labels for name, (images, _) in one["classes"].items() if images}
    if len(dataset.classes) == 1 or len(held) != 1:
        return ""
    ids = ", ".join(f"{number} for '{name}'" for number, name in enumerate(dataset.classes[:NAMED]))
    more = ", ..." if len(dataset.classes) > NAMED else ""
    remedy = f"store masks as class ids: {ids}{more}"
    if dataset.masks:
        remedy += " (or say in masks.values of params/datasets.yaml which value is which class)"
    if any(one["ignored"] for one in labels):
        return (
            f"every mask holds only '{held.pop()}' and ignored pixels, so no model could be wrong; {remedy}, since "
            f"{IGNORE} means: ignore"
        )
    return f"every mask holds only '{held.pop()}', so no model could be wrong; {remedy}"


def _listed(dataset: str, faults: list[str], source: str) -> str:
    """The faults in one sentence, numbered where there are several; source: where the files come from."""
    again = (
        f"then run `bcd fetch {dataset}`, after mending {source}, or `bcd fetch {dataset} --accept`, after mending "
        f"files that an earlier fetch has brought to data/{dataset}"
    )
    if len(faults) == 1:
        return f"{dataset}: {faults[0]}; {again}"
    more = f"; and {len(faults) - FAULTS} more" if len(faults) > FAULTS else ""
    listed = "; ".join(f"({number}) {fault}" for number, fault in enumerate(faults[:FAULTS], 1))
    return f"{dataset}: {len(faults)} faults, each of which would stop a run; mend them, {again}: {listed}{more}"
