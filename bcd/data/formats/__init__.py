"""Label formats: what a format's module offers, and the table `FORMATS` that names each of them.

A format `x` is the module `bcd/data/formats/x.py`, or a package of that name, and a line of `FORMATS`.
Modules with a leading underscore are parts that formats share.
Planning reads the table, so nothing here imports numpy, torch or a format before `load_format` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bcd.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

    from bcd.config.schema.base import TaskName
    from bcd.config.schema.data import Dataset, DataUse
    from bcd.data.objects.annotations import Instances
    from bcd.data.tree import Sample, Tree


class ArchivedFormat(Protocol):
    """A format of files that are fetched; `bcd.data.tree.split_facts` looks at them once they are unpacked."""

    @property
    def SPLITS(self) -> Collection[str]:
        """The splits that the format knows."""

    def samples(self, files: Tree, split: str) -> list[Sample]:
        """The samples of a split in their order; UserError when a file is missing."""


class SemanticFormat(Protocol):
    """A format with label maps, for semantic segmentation.

    It may have `PALETTE`, the RGB of each class in panels, and `CLASSES`, the names that these colours belong to.
    """

    def samples(self, files: Tree, split: str) -> list[Sample]:
        """The samples of a split in their order; UserError when a file is missing."""

    def read_label(self, data: bytes, name: str) -> np.ndarray:
        """A label file's bytes as uint8 (H, W): class ids from 0, 255 = ignore; UserError naming `name`."""


class ObjectFormat(Protocol):
    """A format with objects in COCO's annotation files, for detection and instance segmentation."""

    def annotation_file(self, split: str) -> str:
        """What messages call the annotations of a split: their path below the dataset's folder, or a pattern."""

    def instances(self, files: Tree, split: str) -> Instances:
        """The annotations of a split; each image's `file_name` is its path below the dataset's folder."""


class GeneratedFormat(Protocol):
    """A format of data that are drawn instead of fetched."""

    def generate(
        self,
        root: Path,
        *,
        seed: int,
        size: int,
        splits: dict[str, int],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Write so many images of each split below `root`; `progress(done, total)` is called after each."""

    def samples(self, files: Tree, split: str) -> list[Sample]:
        """The samples of a split in their order; UserError when a file is missing."""


class DescribedFormat(Protocol):
    """A format whose files the dataset's entry describes: what the other protocols ask for is offered by a reader."""

    def reader(self, data: Dataset | DataUse) -> Any:
        """What reads the files as the entry says; it has `files(tree)`, the paths of a tree that are used, as well."""


@dataclass(frozen=True)
class Format:
    """What a format is for: its tasks, whether its data are generated, and whether the entry describes its files."""

    tasks: tuple[TaskName, ...]
    generated: bool = False
    described: bool = False


FORMATS: dict[str, Format] = {
    "ade20k": Format(("semantic",)),
    "camvid": Format(("semantic",)),
    "cityscapes": Format(("semantic",)),
    "coco": Format(("detection", "instance"), described=True),
    "cocostuff10k": Format(("semantic",)),
    "cocostuff164k": Format(("semantic",)),
    "masks": Format(("semantic",), described=True),
    "pascal_context": Format(("semantic",)),
    "scenes": Format(("semantic", "detection", "instance"), generated=True),
    "voc": Format(("semantic",)),
}
# What a format without a task lacks.
LACKING = {"semantic": "label maps", "detection": "objects", "instance": "objects"}


def load_format(name: str) -> Any:
    """The module of a format; the caller says by a protocol of this file what it needs of it.

    Raises UserError for a name that is not in `FORMATS`.
    """
    require_format(name, None, "params/datasets.yaml")
    return import_module(f"bcd.data.formats.{name}")


def reader_of(data: Dataset | DataUse) -> Any:
    """What reads the dataset's files: the module of its format, or what that makes of the entry.

    Raises UserError for a format that is not in `FORMATS`.
    """
    module = load_format(data.format)
    return module.reader(data) if FORMATS[data.format].described else module


def require_format(dataset_format: str, task: TaskName | None, where: str) -> None:
    """Raise UserError unless the format exists and has what `task` needs; `where` starts the sentence.

    task: None asks only whether the format exists.
    """
    if dataset_format not in FORMATS:
        if (Path(__file__).parent / f"{dataset_format}.py").is_file():
            raise UserError(
                f"{where}: format '{dataset_format}' has a module but no line; add it to FORMATS in "
                "bcd/data/formats/__init__.py"
            )
        raise UserError(f"{where}: format '{dataset_format}' is not known{nearest(dataset_format, FORMATS)}")
    tasks = FORMATS[dataset_format].tasks
    if task is not None and task not in tasks:
        raise UserError(
            f"{where}: format '{dataset_format}' has no {LACKING[task]}, so it cannot be used for the task '{task}'; "
            f"it is for {' and '.join(tasks)}"
        )
