"""A folder of images with objects, described: COCO files of several exporters, or labelme's file of each image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from bcd.config.check import check
from bcd.config.schema.data import Dataset
from bcd.config.schema.splitting import SPLIT
from bcd.data.formats import reader_of
from bcd.data.formats._described import below, common, hidden
from bcd.data.objects.annotations import Instances, has_outline, load
from bcd.data.objects.outlines import without_outline
from bcd.data.tree import Tree
from bcd.errors import UserError, counted
from bcd.scaffold.look import Described, entry_of, fractions, images_in, lists_in, named_folders, template

NAMED = 20  # images of an annotation file that say where its images are
COCO, LABELME = {"images", "annotations", "categories"}, {"shapes", "imagePath"}
GUIDE = "docs/guides/add-a-dataset.md says how to write the entry by hand"


def annotated(files: Tree) -> bool:
    """Whether a folder has annotation files of objects."""
    return bool(_coco_files(files) or _labelme_files(files))


def describe(files: Tree, folder: str, names: Sequence[str]) -> Described:
    """What the entry of a folder of images with objects says.

    folder: as the entry names it. names: of the categories that are detected; empty for those that are used.

    Raises UserError where there are no annotation files, and what the reader of `format: coco` raises.
    """
    found = _coco_files(files)
    layout = _of_coco(files, found) if found else _of_labelme(files)
    splits = layout.pop("splits")
    entry = entry_of("coco", folder, splits) | {"coco": layout}
    dataset = check(Dataset, entry, "the folder")
    where = dataset.coco
    assert where is not None
    for path in found:
        _require_images(files, path, where.images if SPLIT not in where.images else _images_of(files, path))
    reader = reader_of(dataset)
    documents: dict[str, Instances] = {split: reader.instances(files, split) for split in splits}
    entry["splits"] = {split: len(one["images"]) for split, one in documents.items()}
    entry["classes"], notes = _classes(documents.values(), names)
    images = [image for one in documents.values() for image in one["images"]]
    entries = [entry for one in documents.values() for entry in one["annotations"]]
    drawn = sum(has_outline(entry) for entry in entries)
    if entries and all(entry.get("iscrowd") for entry in entries):
        layout["crowds"] = False
        notes.append("every object has iscrowd 1, so that is taken for a habit of the tool, and each for one object")
    counts = ", ".join(f"{count} {split}" for split, count in entry["splits"].items())
    how = "by file" if SPLIT in where.annotations else "by list" if where.lists else "by chance"
    like = " and so on" if SPLIT in where.annotations else ""
    named = f"{where.at(where.images, splits[0])} and {where.at(where.annotations, splits[0])}{like}"
    what = f"{counted(len(images), 'image')} with {counted(len(entries), 'object')}, {drawn} of them with masks"
    notes.insert(0, f"{what} ({named}), split {how}: {counts}")
    used = {image["file_name"] for image in images}
    if left := len([path for path in images_in(files) if path not in used]):
        notes.append(f"left out, as no annotation file lists them: {counted(left, 'image')}")
    most = max(Counter((id(one), e["image_id"]) for one in documents.values() for e in one["annotations"]).values())
    return Described(entry, notes, np.array([[image["height"], image["width"]] for image in images], int), most)


def maskless(files: Tree, described: Described) -> str:
    """The first object without an outline, as the start of a sentence; "" where all have one."""
    reader = reader_of(check(Dataset, described.entry, "the folder"))
    return without_outline(
        (reader.annotation_file(split), reader.instances(files, split)) for split in described.entry["splits"]
    )


def _require_images(files: Tree, where: str, folder: str) -> None:
    """Raise UserError for images of an annotation file of whose name there is no file.

    The reader asks for this, too, but its remedies are for an entry that is there.
    """
    known = {PurePosixPath(path).name for path in images_in(files) if path.startswith(below(folder))}
    names = [image["file_name"] for image in load(files.read(where), where)["images"]]
    if absent := [name for name in names if _parts(name)[-1] not in known]:
        more = f", and {len(absent) - 1} more such images" if len(absent) > 1 else ""
        raise UserError(
            f"{where} lists the image {absent[0]}{more}, and {below(folder) or 'the folder'} has no file of that name; "
            "put it there, or take the entry out"
        )


def _parts(name: str) -> tuple[str, ...]:
    """Of a `file_name`, whose separators may be those of Windows."""
    return PurePosixPath(name.replace("\\", "/")).parts or ("",)


def _json_files(files: Tree) -> list[str]:
    return sorted(path for path in files.paths if path.endswith(".json") and not hidden(path))


def _keys(files: Tree, path: str) -> set[str]:
    """The keys of a JSON file; a damaged one may be a split's, which must not be passed by."""
    try:
        content = json.loads(files.read(path))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); get it anew, or take it out of the folder") from None
    return set(content) if isinstance(content, dict) else set()


def _coco_files(files: Tree) -> list[str]:
    """COCO files with boxes; those of key points, which hold the same boxes, only where there are no others."""
    listed = _json_files(files)
    if listed and _keys(files, listed[0]) >= LABELME:
        return []
    found = [path for path in listed if _keys(files, path) >= COCO]
    plain = [path for path in found if "keypoints" not in PurePosixPath(path).name]
    return plain or found


def _labelme_files(files: Tree) -> list[str]:
    listed = _json_files(files)
    return listed if listed and _keys(files, listed[0]) >= LABELME else []


def _of_coco(files: Tree, found: Sequence[str]) -> dict[str, Any]:
    """Fields of `Coco`, and the names of the splits under `splits`."""
    folders = {path: _images_of(files, path) for path in found}
    if len(found) == 1:
        return _shared(files, {"images": folders[found[0]], "annotations": found[0]})
    named = template(found)
    if not named or "train" not in named[1]:
        raise UserError(f"{', '.join(found[:5])} are several annotation files, whose names say no splits; {GUIDE}")
    where, words = named
    images = template(folders.values())
    same = images[0] if images and images[1] == words else _above(list(folders.values()))
    order = [split for split in ("train", "val", "test") if split in words]
    return {"images": same, "annotations": where} | named_folders(words) | {"splits": order}


def _of_labelme(files: Tree) -> dict[str, Any]:
    found = _labelme_files(files)
    if not found:
        raise UserError(f"{files.dataset} has no annotation file of COCO or labelme (.json); add it, or {GUIDE}")
    if strange := [path for path in found if not _keys(files, path) >= LABELME]:
        raise UserError(
            f"{strange[0]} is no file of labelme, as {found[0]} is; save it anew, or take it out of the folder"
        )
    folder = _above([str(PurePosixPath(path).parent) for path in found])
    photos = _above([str(PurePosixPath(path).parent) for path in images_in(files)])
    pattern = "*.json" if folder == "." else f"{folder}/*.json"
    return _shared(files, {"images": photos, "annotations": pattern}, len(found))


def _shared(files: Tree, layout: dict[str, Any], count: int = 0) -> dict[str, Any]:
    """The layout of one file for all splits with a way to split it."""
    keys = {key for path in images_in(files) if (key := common(path, layout["images"])) is not None}
    if listed := lists_in(files, keys):
        order = [split for split in ("train", "val", "test") if split in listed[1]]
        return layout | {"lists": listed[0], "splits": order}
    shares = fractions(count or len(load(files.read(layout["annotations"]), layout["annotations"])["images"]))
    return layout | {"fractions": shares, "splits": list(shares)}


def _images_of(files: Tree, where: str) -> str:
    """The folder of an annotation file's images: the one that most of some names are found in, nearest to the file."""
    places: Counter[str] = Counter()
    for image in load(files.read(where), where)["images"][:NAMED]:
        parts = _parts(image["file_name"])
        for path in images_in(files):
            if PurePosixPath(path).name == parts[-1]:
                places[_before(PurePosixPath(path).parts, parts)] += 1
    if not places:
        raise UserError(f"{where}: none of its images is in the folder; put them there, or correct `file_name`")
    stem = {*PurePosixPath(where).parts[:-1], *_words(where)}
    return max(
        places, key=lambda place: (places[place], len(stem & {*PurePosixPath(place).parts, *_words(place)}), place)
    )


def _words(path: str) -> set[str]:
    named = template([path])
    return set(named[1].values()) if named else set()


def _before(path: Sequence[str], name: Sequence[str]) -> str:
    """The folders of a path in front of those that the name has, too; or its own folder, if the name has others."""
    tail = 0
    while tail < min(len(path), len(name)) and path[-1 - tail] == name[-1 - tail]:
        tail += 1
    return "/".join(path[: -tail if tail == len(name) else -1]) or "."


def _above(folders: Sequence[str]) -> str:
    """The folder that all of these are in."""
    parts = [PurePosixPath(folder).parts for folder in folders]
    same = 0
    while all(len(one) > same and one[same] == parts[0][same] for one in parts):
        same += 1
    return "/".join(parts[0][:same]) or "."


def _classes(documents: Any, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the classes in the order of their ids, and what is said of them."""
    called: dict[Any, str] = {}
    used: Counter[str] = Counter()
    for one in documents:
        of = {category["id"]: category["name"] for category in one["categories"]}
        called |= of
        used.update(of.get(entry["category_id"], "") for entry in one["annotations"])
    kept = [name for name in dict.fromkeys(called.values()) if used[name]]
    if not kept:
        raise UserError("the annotation files have no objects of a category that they list; annotate some images")
    if names:
        if strange := [name for name in names if name not in called.values()]:
            raise UserError(f"--classes: no category is called '{strange[0]}'; there are {', '.join(called.values())}")
        return list(names), []
    idle = [name for name in dict.fromkeys(called.values()) if not used[name]]
    shown = ", ".join(idle[:5]) + (f" and {len(idle) - 5} more" if len(idle) > 5 else "")
    return kept, [f"categories that no object has are left out: {shown}"] if idle else []
