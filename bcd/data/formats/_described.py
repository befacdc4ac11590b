"""What formats share whose files the dataset's entry describes: paths, names, lists, and shares by chance."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import PurePosixPath
from unicodedata import normalize

from bcd.config.schema.splitting import SPLIT, Splitting
from bcd.data import tree
from bcd.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
"""Of the files that count where a folder is named and no pattern, in small letters."""
PARAMS = "of params/datasets.yaml"


def chosen(
    files: tree.Tree, layout: Splitting, split: str, names: Mapping[str, object], *, block: str, where: str
) -> list[str]:
    """Which of the images' names belong to a split: in the order of its list, else sorted.

    block: the entry's key of the layout; where: what messages say the images are at.

    Raises UserError for a split that gets none, and for a list that is absent, empty, or names what is no image.
    """
    if layout.lists:
        return _listed(files, layout, split, names, block, where)
    if not layout.fractions:
        return sorted(names)
    if not (share := shares(names, layout.fractions, layout.seed)[split]):
        raise UserError(
            f"the split '{split}' gets none of {len(names)} images; raise its share in {block}.fractions {PARAMS}"
        )
    return share


def shares(names: Iterable[str], fractions: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    """The names of each split, sorted; every name is in one split.

    The names are put in the order of the SHA-256 of `<seed>/<name>`, and the splits, in the order of their names, take
    their shares from it, each end rounded to the nearest whole number.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    splits = sorted(fractions)
    ends = [round(len(order) * share) for share in accumulate(fractions[split] for split in splits)]
    return {split: sorted(order[first:end]) for split, first, end in zip(splits, [0, *ends], ends, strict=False)}


def list_files(layout: Splitting, splits: Iterable[str]) -> set[str]:
    """The paths of the splits' lists, if it has some."""
    return {layout.lists.replace(SPLIT, split) for split in splits if layout.lists}


def common(path: str, pattern: str) -> str | None:
    """What a pattern's * stands for, or the path of an image below a folder without its suffix; None for others.

    It is in one Unicode form, as systems write an umlaut as one character or as two.
    """
    if hidden(path):
        return None
    if "*" in pattern:
        prefix, suffix = pattern.split("*")
        fits = len(path) > len(prefix) + len(suffix) and path.startswith(prefix) and path.endswith(suffix)
        return normalize("NFC", path[len(prefix) : len(path) - len(suffix)]) if fits else None
    folder = below(pattern)
    suffix = PurePosixPath(path).suffix
    fits = path.startswith(folder) and suffix.lower() in SUFFIXES
    return normalize("NFC", path[len(folder) : len(path) - len(suffix)]) if fits else None


def below(folder: str) -> str:
    """What the paths of a folder's files begin with."""
    return folder.strip("./") and f"{folder.rstrip('/')}/"


def hidden(path: str) -> bool:
    """Whether a path is one that systems add beside one's own files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(path).parts)


def _listed(
    files: tree.Tree, layout: Splitting, split: str, names: Mapping[str, object], block: str, where: str
) -> list[str]:
    path = layout.lists.replace(SPLIT, split)
    if path not in files.paths:
        raise UserError(f"there is no list {path}; put it there, or correct {block}.lists {PARAMS}")
    try:
        text = files.read(path).decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise UserError(f"the list {path} is not UTF-8 text; save it as UTF-8") from None
    found = [normalize("NFC", line.strip()) for line in text.splitlines() if line.strip()]
    if not found:
        raise UserError(f"the list {path} has no names, so the split '{split}' is empty; write one a line")
    if strange := [name for name in found if name not in names]:
        raise UserError(
            f"the list {path} has '{strange[0]}', and no image at {where} is called so; write names without folder and "
            "suffix, one a line"
        )
    if len(set(found)) < len(found):
        raise UserError(f"the list {path} has '{Counter(found).most_common(1)[0][0]}' twice; take one of them out")
    return found
