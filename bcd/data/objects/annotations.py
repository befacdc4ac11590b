"""COCO instances files: parsed, checked, and renumbered for training and evaluation.

The format is that of https://cocodataset.org/#format-data: `images`, `categories` and `annotations`, boxes as x, y,
width, height in pixels, segmentations as polygons or run-length codes.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import NotRequired, TypedDict

from bcd.data.objects.categories import classless
from bcd.errors import UserError


class Image(TypedDict):
    """An image; `file_name` is the annotations' name for it."""

    id: int
    file_name: str
    height: int
    width: int


class Category(TypedDict):
    """A kind of object."""

    id: int
    name: str


class RunLengths(TypedDict):
    """A mask as the lengths of its runs, column by column, the first one of zeros; `size` is height, width.

    Compressed, `counts` are text in a file and bytes from pycocotools.
    """

    size: list[int]
    counts: list[int] | str | bytes


# Polygons, each x1 y1 x2 y2 ... in pixels, or a run-length code.
Segmentation = list[list[float]] | RunLengths


class Annotation(TypedDict):
    """An object; `bbox` is x, y, width, height.

    What `parse` returns has `iscrowd` 0 or 1, `area` in pixels, and a segmentation if asked.
    """

    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: NotRequired[float]
    iscrowd: NotRequired[int]
    segmentation: NotRequired[Segmentation]


class Instances(TypedDict):
    """A COCO instances file."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation]


# The fields that each entry must have, where some exporters write ids as words. What else is wrong with an annotation,
# `fault` finds.
IMAGE: dict[str, type | tuple[type, ...]] = {"id": (int, str), "file_name": str, "height": int, "width": int}
CATEGORY: dict[str, type | tuple[type, ...]] = {"id": (int, str), "name": str}
ANNOTATION: dict[str, type | tuple[type, ...]] = {
    "id": (int, str),
    "image_id": (int, str),
    "category_id": (int, str),
    "bbox": list,
}
IDS = ("id", "image_id", "category_id")
CROWD = (None, 0, 1)  # exporters write null for what is none
# Official boxes are rounded, so that some end a fraction of a pixel outside of their image.
OUTSIDE = 1.0
SHOWN = 20
REMEDY = "correct the file, or list the ids under skip_annotations in params/datasets.yaml"


def parse(
    document: Instances, where: str, classes: Sequence[str], *, skip: Collection[int] = (), masks: bool = True
) -> Instances:
    """A document as a COCO dict that speaks of our classes.

    document: what `load` makes of the file that messages call `where`.
    classes: names of the categories, found by name.
    skip: ids of annotations to leave out.
    masks: whether segmentations are needed; without, they are dropped.

    Images keep their order, and their ids; where some of these are words, all are numbered from 1. `categories` are
    `classes`, with their index as id. `annotations` keep their order and crowds. They are
    numbered from 1, since the COCO evaluation takes an id of 0 for "unmatched". Polygons of fewer than three points are
    left out, as detectron2 does (detectron2/data/datasets/coco.py). An area that is not stated is that of the
    segmentation, or of the box where there is none.

    Raises UserError naming `classes` for annotations of a category that is not among them, and file and id for:

    - boxes that are fractions of their images
    - an annotation of an unknown image or category
    - a box of zero area, or one more than OUTSIDE pixels outside of its image
    - an area that is no number above 0, with which an object would count in no size or in each
    - a segmentation that is missing, empty or of another size than its image
    """
    images = {image["id"]: image for image in document["images"]}
    names = {category["id"]: category["name"] for category in document["categories"]}
    index = {name: number for number, name in enumerate(classes)}
    left_out = frozenset(skip)
    words = any(isinstance(image, str) for image in images)
    numbers = {image: number if words else image for number, image in enumerate(images, 1)}
    annotations: list[Annotation] = []
    faults: dict[str, list[Annotation]] = defaultdict(list)
    entries = [entry for entry in document["annotations"] if entry["id"] not in left_out]
    if _fractions(entries):
        raise UserError(
            f"{where}: all boxes lie within 0..1, so they are fractions of their images; write x, y, width and height "
            "in pixels: multiply the first and the third by the image's width, the others by its height"
        )
    if strange := classless(document, classes, left_out):
        raise UserError(strange)
    for entry in entries:
        if problem := fault(entry, images.get(entry["image_id"]), names, masks):
            faults[problem].append(entry)
            continue
        kept: Annotation = {
            "id": len(annotations) + 1,
            "image_id": numbers[entry["image_id"]],
            "category_id": index[names[entry["category_id"]]],
            "bbox": entry["bbox"],
            "area": entry["area"] if "area" in entry else _area(entry, images[entry["image_id"]]),
            "iscrowd": int(entry.get("iscrowd") or 0),
        }
        if masks:
            kept["segmentation"] = _whole(entry["segmentation"])
        annotations.append(kept)
    if faults:
        found = ", ".join(f"{_listed(entries)} {problem}" for problem, entries in faults.items())
        raise UserError(f"{where}: {found}; {REMEDY}")
    return {
        "images": [
            {"id": numbers[i["id"]], "file_name": i["file_name"], "height": i["height"], "width": i["width"]}
            for i in images.values()
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes)],
        "annotations": annotations,
    }


def load(text: bytes, where: str) -> Instances:
    """The file's JSON with its three lists, whose entries have the fields of their kind and ids of their own.

    An id that is a number in quotes is read as the number. Raises UserError naming file and entry for what is not such
    a file, an id that occurs twice, and two entries of one image.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); get the file anew") from None
    for part, fields in (("images", IMAGE), ("categories", CATEGORY), ("annotations", ANNOTATION)):
        entries = document.get(part) if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{where} has no list '{part}'; it must be a COCO instances file")
        for number, entry in enumerate(entries):
            for field, kind in fields.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(field), kind):
                    what = f"id {entry['id']}" if isinstance(entry, dict) and "id" in entry else f"entry {number}"
                    raise UserError(f"{where}: {part}, {what}: '{field}' is missing or of a wrong type; correct it")
            entry.update({field: int(entry[field]) for field in IDS if _quoted(entry.get(field))})
        if len({entry["id"] for entry in entries}) < len(entries):
            twice = Counter(entry["id"] for entry in entries).most_common(1)[0][0]
            raise UserError(f"{where}: {part}: the id {twice} occurs twice; give each entry an id of its own")
    named = Counter(image["file_name"] for image in document["images"]).most_common(1)
    if named and named[0][1] > 1:
        raise UserError(f"{where}: images: the file {named[0][0]} occurs twice; give each image one entry")
    return document


def _quoted(value: object) -> bool:
    """Whether a value is a whole number in quotes, written as Python writes it."""
    return isinstance(value, str) and value.isdecimal() and str(int(value)) == value


def _fractions(entries: Sequence[Annotation]) -> bool:
    """Whether all boxes lie within 0..1, as exporters for other detectors write them. Whole numbers may be pixels."""
    edges = [edge for entry in entries for edge in entry["bbox"]]
    numbers = all(isinstance(edge, int | float) and 0 <= edge <= 1 for edge in edges)
    return numbers and any(edge not in (0, 1) for edge in edges)


def fault(entry: Annotation, image: Image | None, categories: Collection[int], masks: bool) -> str:
    """What is wrong with an annotation, as the end of a sentence; "" when nothing is.

    image: its image, if known. categories: ids of the file's. masks: whether a segmentation is needed.
    """
    if image is None:
        return "belong to an image that the file does not list"
    if entry["category_id"] not in categories:
        return f"have the category_id {entry['category_id']}, which is not among the file's categories"
    if len(entry["bbox"]) != 4 or not all(isinstance(edge, int | float) for edge in entry["bbox"]):
        return "have a box that is not x, y, width, height"
    x, y, width, height = entry["bbox"]
    # Written so that a NaN is wrong, too.
    if not (width > 0 and height > 0):
        return "have a box of zero area"
    if not (
        min(x, y) >= -OUTSIDE and x + width <= image["width"] + OUTSIDE and y + height <= image["height"] + OUTSIDE
    ):
        return "have a box outside of their image"
    area = entry.get("area", 1)
    if not isinstance(area, int | float) or not 0 < area < math.inf:
        return "have an area that is not a number above 0"
    if "area" in entry and area > image["width"] * image["height"]:
        return "have an area of more pixels than their image"
    if entry.get("iscrowd") not in CROWD:
        return "have an iscrowd that is neither 0 nor 1"
    return _segmentation_fault(entry.get("segmentation"), image) if masks else ""


def _area(entry: Annotation, image: Image) -> float:
    """Of the segmentation in pixels, or of the box where there is none."""
    from bcd.data.objects import masks

    drawn = entry.get("segmentation")
    if drawn and not _segmentation_fault(drawn, image):
        pixels = masks.area(_whole(drawn), image["height"], image["width"])
        if pixels:
            return pixels
    return entry["bbox"][2] * entry["bbox"][3]


def has_outline(entry: Annotation) -> bool:
    """Whether an annotation has a run-length code, or a polygon of three points or more."""
    return bool(_whole(entry.get("segmentation") or []))


def _segmentation_fault(segmentation: object, image: Image) -> str:
    if not segmentation:
        return "have no segmentation"
    if isinstance(segmentation, list):
        return "" if _whole_polygons(segmentation) else "have no polygon of three points or more"
    height, width = image["height"], image["width"]
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        return "have a run-length code that is not of their image's size"
    counts = segmentation.get("counts")
    runs = run_lengths(counts) if isinstance(counts, str) else counts
    fits = isinstance(runs, list) and all(isinstance(n, int) and n >= 0 for n in runs) and sum(runs) == height * width
    return "" if fits else "have a run-length code that does not cover their image"


def run_lengths(code: str) -> list[int]:
    """The pixels of each run of a compressed code, [] when it is damaged: pycocotools would draw it without a word.

    A character is six bits above "0": five of a number, lowest first, and one that says whether more follow. Numbers
    are in two's complement, and from the fourth on the difference to the one before the last (rleFrString in cocoapi,
    common/maskApi.c).
    """
    runs: list[int] = []
    number = shift = 0
    for character in code:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return []
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            signed = number - (1 << shift) if bits & 16 else number
            runs.append(signed + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    return [] if shift else runs


def _whole(segmentation: Segmentation) -> Segmentation:
    """The segmentation without polygons of fewer than three points."""
    return _whole_polygons(segmentation) if isinstance(segmentation, list) else segmentation


def _whole_polygons(polygons: list[list[float]]) -> list[list[float]]:
    return [one for one in polygons if isinstance(one, list) and len(one) >= 6 and len(one) % 2 == 0]


def _listed(entries: Sequence[Annotation]) -> str:
    shown = [f"{entry['id']} of image {entry['image_id']}" for entry in entries[:SHOWN]]
    more = [f"{len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return f"the annotations {', '.join(shown + more)}"
