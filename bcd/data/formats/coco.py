"""Images with objects in COCO's JSON: the official layout of COCO 2017, or an own one that the entry describes.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; https://cocodataset.org/#download. The files of the
test split have no annotations, so the customary test images are those of `val`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from bcd.config.schema.coco import Coco
from bcd.config.schema.data import Dataset, DataUse
from bcd.data import tree
from bcd.data.formats import _labelme
from bcd.data.formats._described import PARAMS, below, chosen, common, list_files
from bcd.data.objects.annotations import Instances, load
from bcd.errors import UserError

OFFICIAL = Coco(images="{split}2017", annotations="annotations/instances_{split}2017.json")
OFFICIAL_SPLITS = ("train", "val")


@dataclass(frozen=True)
class Reader:
    """The files of one dataset, by where its entry says that they are."""

    layout: Coco
    SPLITS: tuple[str, ...]

    def annotation_file(self, split: str) -> str:
        """Path, below the dataset's folder, of the annotations of `split`; a pattern of labelme's files."""
        return self.layout.at(self.layout.annotations, split)

    def instances(self, files: tree.Tree, split: str) -> Instances:
        """The annotations of `split`, of which each image's `file_name` is its path below the dataset's folder.

        Raises UserError for a missing or faulty annotation file, an image that is not there or may be several, two
        entries of one image, and what `bcd.data.formats._described.chosen` raises.
        """
        where = self.annotation_file(split)
        document = self._document(files, where, split)
        for entry in () if self.layout.crowds else document["annotations"]:
            entry["iscrowd"] = 0
        if self.layout.lists or self.layout.fractions:
            return self._part(files, split, document)
        return document

    def samples(self, files: tree.Tree, split: str) -> list[tree.Sample]:
        """The images of `split`, in the order of its annotations, whose file is the label of each.

        Raises what `instances` raises. What the annotations say is checked when a split is opened, since that depends
        on the classes and on the annotations that are left out.
        """
        where = self.annotation_file(split)
        labels = {one.image: one.where for one in self._labelled(files, split)} if "*" in where else {}
        paths = [image["file_name"] for image in self.instances(files, split)["images"]]
        return [tree.Sample(path, path, labels.get(path, where)) for path in paths]

    def files(self, files: tree.Tree) -> set[str]:
        """The paths that are used: images and annotations of the splits, and their lists; raises as `samples`."""
        samples = [sample for split in self.SPLITS for sample in self.samples(files, split)]
        return list_files(self.layout, self.SPLITS) | {path for one in samples for path in (one.image, one.label)}

    def _document(self, files: tree.Tree, where: str, split: str) -> Instances:
        if "*" in where:
            return _labelme.document(self._labelled(files, split))
        if where not in files.paths:
            raise UserError(f"{files.dataset} has no file {where}; put it there, or correct coco.annotations {PARAMS}")
        document = load(files.read(where), where)
        folder = self.layout.at(self.layout.images, split)
        paths = placed([image["file_name"] for image in document["images"]], files, folder, where)
        for image, path in zip(document["images"], paths, strict=True):
            image["file_name"] = path
        return document

    def _labelled(self, files: tree.Tree, split: str) -> list[_labelme.File]:
        return _labelme.read_all(files, self.annotation_file(split), self.layout.at(self.layout.images, split))

    def _part(self, files: tree.Tree, split: str, document: Instances) -> Instances:
        """The split's images, with all annotations but those of the other images."""
        named = {_name(image["file_name"], self.layout.images): image for image in document["images"]}
        names = chosen(files, self.layout, split, named, block="coco", where=self.layout.images)
        images = [named[name] for name in names]
        others = {image["id"] for image in document["images"]} - {image["id"] for image in images}
        kept = [entry for entry in document["annotations"] if entry["image_id"] not in others]
        return {**document, "images": images, "annotations": kept}


def reader(data: Dataset | DataUse) -> Reader:
    """What reads the files of a dataset of this format."""
    return Reader(data.coco, tuple(data.splits)) if data.coco else Reader(OFFICIAL, OFFICIAL_SPLITS)


def placed(names: Sequence[str], files: tree.Tree, folder: str, where: str) -> list[str]:
    """The path of each image that the annotation file `where` names; `folder`: where the images are.

    It is the path below the folder, or the only file for which one of the two is the end of the other: exporters write
    folders of their own in front of a name (Label Studio), or leave out folders that are there (CVAT). Their
    separators may be those of Windows.

    Raises UserError for a name that is no file, or may be several, and for a file with two names.
    """
    start = below(folder)
    known: dict[str, list[str]] = defaultdict(list)
    for path in files.paths:
        if path.startswith(start):
            known[_parts(path)[-1]].append(path)
    paths = [_place(name, known, start, where) for name in names]
    owners: dict[str, str] = {}
    for name, path in zip(names, paths, strict=True):
        if path in owners:
            raise UserError(f"{where}: images: {owners[path]} and {name} are both {path}; give each image one entry")
        owners[path] = name
    return paths


def _place(name: str, known: Mapping[str, list[str]], start: str, where: str) -> str:
    wanted = _parts(name)
    found = {path: _parts(path[len(start) :]) for path in known.get(wanted[-1], [])}
    if exact := [path for path, parts in found.items() if parts == wanted]:
        return exact[0]
    fitting = [path for path, parts in found.items() if all(a == b for a, b in _from_the_end(parts, wanted))]
    if len(fitting) > 1:
        raise UserError(
            f"{where}: images: the file_name {name} may be {fitting[0]} or {fitting[1]}; write the path below "
            f"{start or 'the dataset'} there"
        )
    if not fitting:
        raise UserError(
            f"{where}: images: the file_name {name} is no file of {start or 'the dataset'}; put it there, take the "
            f"entry out, or say by coco.images {PARAMS} where images are"
        )
    return fitting[0]


def _parts(path: str) -> list[str]:
    """Folders and name, in one Unicode form, without what leads nowhere."""
    return [part for part in re.split(r"[/\\]", normalize("NFC", path)) if part not in ("", ".", "..")] or [""]


def _from_the_end(one: Sequence[str], other: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(reversed(one), reversed(other), strict=False)


def _name(path: str, folder: str) -> str:
    """What lists and shares call an image: its path below the folder, without suffix."""
    return common(path, folder) or path
