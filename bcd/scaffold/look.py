"""What lies in a folder: its files, the sizes of images, which of them are masks, and words that name splits."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from bcd.data import decode
from bcd.data.acquire.folder import paths_in
from bcd.data.formats._described import SUFFIXES, hidden
from bcd.data.tree import Tree
from bcd.errors import UserError, counted
from bcd.files import read_bytes

Item = TypeVar("Item")

MOST_COLOURS = 255  # of a mask: more than that are no classes
FLAT = 0.75  # share of pixels of a mask that are as their left neighbour; of photographs it is much less
MOST_SIZES = 2000  # images whose sizes are read
LOSSY = (".jpg", ".jpeg", ".jp2", ".webp")
SPLIT_WORD = re.compile(
    r"(?<![A-Za-z])(training|train|validation|valid|val|testing|test)(?=annot|mask|label|image|[^A-Za-z]|$)",
    re.IGNORECASE,
)
SPLITS = {"training": "train", "train": "train", "validation": "val", "valid": "val", "val": "val",
          "testing": "test", "test": "test"}  # fmt: skip


@dataclass(frozen=True)
class Described:
    """What a folder holds, as an entry of params/datasets.yaml says it.

    entry   its fields, plain values
    notes   sentences: what was found, and what of it is a guess
    sizes   height and width of images: int (n, 2)
    objects the most of an image; 0 for masks
    """

    entry: dict[str, Any]
    notes: list[str]
    sizes: np.ndarray
    objects: int = 0


def tree_of(folder: Path, name: str) -> Tree:
    """The files of a folder; raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"--data {folder} is no folder; name one that holds images")
    return Tree(paths_in(folder), lambda path: read_bytes(folder / path), name)


def entry_of(form: str, folder: str, splits: Iterable[str]) -> dict[str, Any]:
    """What an entry has whatever it describes; classes and the number of images of each split are not known yet."""
    return {
        "format": form,
        "folder": folder,
        "classes": ["unknown"],
        "splits": dict.fromkeys(splits, 1),
        "licence": "not stated",
        "source": f"the folder {folder}",
    }


def images_in(files: Tree) -> list[str]:
    """The paths of image files, sorted."""
    found = [path for path in files.paths if PurePosixPath(path).suffix.lower() in SUFFIXES and not hidden(path)]
    return sorted(found)


def some(values: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the values, evenly spaced."""
    return [values[index * len(values) // min(most, len(values))] for index in range(min(most, len(values)))]


def looks_like_mask(files: Tree, path: str) -> bool:
    """Whether an image has few colours in large flat parts, and its file format keeps them.

    Raises UserError for a file that is no readable image, but for those of a LOSSY suffix, which are not opened.
    """
    if path.lower().endswith(LOSSY):
        return False
    with decode.opened(files.read(path), path) as image:
        if image.mode in ("1", "P"):
            return True
        pixels = np.array(image.convert("RGB")).astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    flat = (pixels[:, 1:] == pixels[:, :-1]).mean() if pixels.shape[1] > 1 else 1.0
    return len(np.unique(pixels)) <= MOST_COLOURS and flat >= FLAT


def sizes_of(files: Tree, paths: Sequence[str]) -> np.ndarray:
    """Height and width as viewers show them, int (n, 2), of at most MOST_SIZES images; only headers are read."""
    found = [decode.shown_size(files.read(path), path) for path in some(paths, MOST_SIZES)]
    return np.array(found, int).reshape(-1, 2)


def split_word(path: str) -> re.Match[str] | None:
    """Where a path names a split: the last such word."""
    return next(iter(list(SPLIT_WORD.finditer(path))[-1:]), None)


def template(paths: Iterable[str]) -> tuple[str, dict[str, str]] | None:
    """What paths of splits have in common: the path with `{split}`, and split -> its word; None where they differ."""
    words: dict[str, str] = {}
    shapes = set()
    for path in paths:
        if not (word := split_word(path)):
            return None
        shapes.add(path[: word.start()] + "{split}" + path[word.end() :])
        if words.setdefault(SPLITS[word[0].lower()], word[0]) != word[0]:
            return None
    return (shapes.pop(), words) if len(shapes) == 1 else None


def named_folders(words: dict[str, str]) -> dict[str, Any]:
    """The key `folders` of a layout, where a split's word is another than its name."""
    other = {split: word for split, word in words.items() if split != word}
    return {"folders": other} if other else {}


def fractions(images: int) -> dict[str, float]:
    """Shares of the splits, so that each has images: more for evaluation where there are few.

    Raises UserError for fewer images than splits.
    """
    if images < len(set(SPLITS.values())):
        raise UserError(
            f"there {'is' if images == 1 else 'are'} {counted(images, 'image')}, and train, val and test need one "
            "each; add images, or put them into folders train and val"
        )
    return {"train": 0.6, "val": 0.2, "test": 0.2} if images < 100 else {"train": 0.7, "val": 0.1, "test": 0.2}


def lists_in(files: Tree, names: Collection[str]) -> tuple[str, list[str]] | None:
    """Text files of splits, whose lines are images' names: their path with `{split}`, and the splits; or None."""
    groups: dict[str, list[str]] = {}
    for path in sorted(files.paths):
        stem, folder = PurePosixPath(path).stem, PurePosixPath(path).parent
        if path.endswith(".txt") and stem in ("train", "val", "test"):
            lines = files.read(path).decode(errors="replace").split()
            if lines and set(lines) <= set(names):
                groups.setdefault(f"{folder}/".removeprefix("./") + "{split}.txt", []).append(stem)
    return next(((path, found) for path, found in groups.items() if "train" in found and len(found) > 1), None)


def folder_name(folder: Path) -> str:
    """A name for what a folder holds, in small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
