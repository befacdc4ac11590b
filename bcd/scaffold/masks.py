"""A folder of images with masks, described: which mask belongs to which image, the splits, and the values of masks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from unicodedata import normalize

from bcd.config.check import check
from bcd.config.schema.data import Dataset
from bcd.config.schema.masks import Masks
from bcd.config.schema.splitting import SPLIT
from bcd.data.formats import reader_of
from bcd.data.formats._described import below, common
from bcd.data.tree import Tree
from bcd.errors import UserError, counted
from bcd.scaffold import classes as names_of
from bcd.scaffold.look import (
    SPLITS,
    Described,
    entry_of,
    fractions,
    images_in,
    lists_in,
    looks_like_mask,
    named_folders,
    sizes_of,
    some,
    split_word,
    template,
)
from bcd.scaffold.values import meant, stored_values

LOOKED_AT = 6  # images of a folder that say whether it holds masks
MOST_MASKS = 1000  # whose values are read
# What folders beside those of the masks are called.
TOOLS = re.compile(r"instance|object|depth|colou?r|vis", re.IGNORECASE)
GUIDE = "docs/guides/add-a-dataset.md says how to write the entry by hand"


class Pair(NamedTuple):
    """Where images and their masks are: folders, and what a mask's name has behind that of its image."""

    images: str
    masks: str
    token: str
    suffix: str


def describe(files: Tree, folder: str, names: Sequence[str], void: Collection[str]) -> Described:
    """What the entry of a folder of images with masks says.

    folder: as the entry names it. names: of the classes, in the order of their ids; empty where files may say them.
    void: stored values of pixels that are ignored.

    Raises UserError where masks and images are not told apart, and what the reader of `format: masks` raises.
    """
    photos, masks = _told_apart(files)
    layout = _layout(files, _pairs(photos, masks), photos)
    splits = layout.pop("splits")
    entry = entry_of("masks", folder, splits) | {"masks": layout}
    dataset = check(Dataset, entry, "the folder")
    where = dataset.masks
    assert where is not None
    _require_pairs(files, where, splits)
    reader = reader_of(dataset)
    samples = {split: reader.samples(files, split) for split in splits}
    entry["splits"] = {split: len(found) for split, found in samples.items()}
    listed = [sample for found in samples.values() for sample in found]
    values = stored_values(files, some([sample.label for sample in listed], MOST_MASKS))
    entry["classes"], meaning, notes = meant(values, names, void, names_of.coloured(files), names_of.plain(files))
    entry["masks"] = layout | meaning
    how = "by folder" if SPLIT in where.images else "by list" if where.lists else "by chance"
    counts = ", ".join(f"{count} {split}" for split, count in entry["splits"].items())
    like = " and so on" if SPLIT in where.images else ""
    named = f"{where.at(where.images, splits[0])} and {where.at(where.masks, splits[0])}{like}"
    notes.insert(0, f"{counted(len(listed), 'image')} with masks ({named}), split {how}: {counts}")
    if len(listed) > MOST_MASKS:
        notes.append(f"the values of {MOST_MASKS} masks were read; `bcd fetch` reads all, and names what has no class")
    sizes = sizes_of(files, [sample.image for sample in listed])
    of_masks = sizes_of(files, [sample.label for sample in listed])
    for sample, (height, width), of_mask in zip(some(listed, len(sizes)), sizes, of_masks, strict=True):
        if (height, width) != tuple(of_mask):
            raise UserError(
                f"mask {sample.label} has {of_mask[1]} x {of_mask[0]} pixels, but the image {sample.image} has "
                f"{width} x {height}; save it in the size of its image"
            )
    return Described(entry, notes, sizes)


def _require_pairs(files: Tree, layout: Masks, splits: Sequence[str]) -> None:
    """Raise UserError for an image without its mask, a mask without its image, and two files of one name.

    The reader asks for these, too, but its remedies are for an entry that is there.
    """
    for split in splits:
        folder = layout.at(layout.images, split)
        masks = _by_name(files.paths, layout.at(layout.masks, split))
        images = _by_name(set(files.paths) - set(masks.values()), folder)
        listed = layout.lists.replace(SPLIT, split)
        names = [normalize("NFC", name) for name in files.read(listed).decode().split()] if listed else sorted(images)
        if bare := [name for name in names if name not in masks]:
            wanted = layout.at(layout.masks, split)
            suffix = PurePosixPath(min(masks.values(), default="mask.png")).suffix
            mask = wanted.replace("*", bare[0]) if "*" in wanted else f"{below(wanted)}{bare[0]}{suffix}"
            raise UserError(
                f"the image {images[bare[0]]} has no mask {mask}{_more(bare)}; add it, or take the image away"
            )
        if lonely := [] if listed else [mask for name, mask in masks.items() if name not in images]:
            raise UserError(
                f"the mask {min(lonely)} has no image of its name in {folder}{_more(lonely)}; add it, or take the mask "
                "away"
            )


def _more(found: Sequence[str]) -> str:
    return f", and neither have {len(found) - 1} more" if len(found) > 1 else ""


def _by_name(paths: Iterable[str], pattern: str) -> dict[str, str]:
    """What an image and its mask have in common -> the path, of the files that a pattern names."""
    found: dict[str, str] = {}
    for path in sorted(paths):
        if (name := common(path, pattern)) is None:
            continue
        if name in found:
            raise UserError(f"{found[name]} and {path} have one name, '{name}'; take one of them away, or rename it")
        found[name] = path
    return found


def _told_apart(files: Tree) -> tuple[list[str], list[str]]:
    """Photographs and masks, by some of the images of each folder and suffix."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in images_in(files):
        groups[str(PurePosixPath(path).parent), PurePosixPath(path).suffix].append(path)
    photos: list[str] = []
    masks: list[str] = []
    for paths in groups.values():
        seen = {path: looks_like_mask(files, path) for path in some(paths, LOOKED_AT)}
        if len(set(seen.values())) > 1:  # both lie in one folder
            seen = {path: looks_like_mask(files, path) for path in paths}
        for path in paths:
            (masks if seen.get(path, next(iter(seen.values()))) else photos).append(path)
    if not photos or not masks:
        what = "masks: images of few colours that no JPEG has smeared" if photos else "photographs"
        held = f"{counted(len(photos + masks), 'image')} and no {what}" if photos or masks else "no images"
        raise UserError(f"{files.dataset} holds {held}; add them, or {GUIDE}")
    return photos, masks


def _pairs(photos: Sequence[str], masks: Sequence[str]) -> list[Pair]:
    """The folders that belong together, by the names in them."""
    owners: dict[str, list[PurePosixPath]] = defaultdict(list)
    for photo in photos:
        owners[PurePosixPath(photo).stem].append(PurePosixPath(photo))
    votes: Counter[Pair] = Counter()
    for path in map(PurePosixPath, masks):
        lengths = range(len(path.stem), 0, -1)
        stem = next(
            (path.stem[:n] for n in lengths if path.stem[:n] in owners and not path.stem[n : n + 1].isalnum()), ""
        )
        for owner in owners.get(stem, []):
            votes[Pair(str(owner.parent), str(path.parent), path.stem[len(stem) :], path.suffix)] += 1
    found: dict[str, Pair] = {}

    def rank(pair: Pair) -> tuple[bool, tuple[bool, int], int]:
        return not TOOLS.search(pair.masks), _alike(pair), votes[pair]

    for pair in sorted(votes, key=rank, reverse=True):
        found.setdefault(pair.images, pair)
    if not found:
        raise UserError(
            f"no mask is called as an image, such as {PurePosixPath(photos[0]).stem}.png or "
            f"{PurePosixPath(photos[0]).stem}_mask.png for {photos[0]}; rename them, or {GUIDE}"
        )
    return list(dict.fromkeys(_shortened(pair) for pair in found.values()))


def _alike(pair: Pair) -> tuple[bool, int]:
    """Whether two folders are of one split, and how many parts they share."""
    images, masks = split_word(pair.images), split_word(pair.masks)
    same = bool(images and masks and SPLITS[images[0].lower()] == SPLITS[masks[0].lower()])
    return same, len(set(PurePosixPath(pair.images).parts) & set(PurePosixPath(pair.masks).parts))


def _shortened(pair: Pair) -> Pair:
    """Without the folders that both end in, as these are below what is named; those of splits stay."""
    images, masks = PurePosixPath(pair.images), PurePosixPath(pair.masks)
    while images != masks and images.name == masks.name and images.name and not template([images.name]):
        images, masks = images.parent, masks.parent
    return pair._replace(images=str(images), masks=str(masks))


def _layout(files: Tree, pairs: Sequence[Pair], photos: Sequence[str]) -> dict[str, Any]:
    """Fields of `Masks` that say where the files are, and the names of the splits under `splits`."""
    if len(pairs) > 1:
        images, masks = template(pair.images for pair in pairs), template(pair.masks for pair in pairs)
        if images and masks and images[1] == masks[1] and "train" in images[1] and len({p[2:] for p in pairs}) == 1:
            one = pairs[0]._replace(images=images[0], masks=masks[0])
            return _paths(one, photos) | named_folders(images[1]) | {"splits": sorted(images[1], key=_order)}
        where = ", ".join(pair.images for pair in pairs[:5])
        raise UserError(f"images are in {where}, whose names say no splits such as train and val; {GUIDE}")
    layout = _paths(pairs[0], photos)
    keys = {key for path in photos if (key := common(path, layout["images"])) is not None}
    if listed := lists_in(files, keys):
        return layout | {"lists": listed[0], "splits": sorted(listed[1], key=_order)}
    shares = fractions(len(keys))
    return layout | {"fractions": shares, "splits": list(shares)}


def _order(split: str) -> int:
    return ("train", "val", "test").index(split)


def _paths(pair: Pair, photos: Sequence[str]) -> dict[str, Any]:
    """Where the images and the masks of a pair are, as `Masks` has it."""
    prefix = "" if pair.masks == "." else f"{pair.masks}/"
    if pair.images == pair.masks and not pair.token:  # they differ by their suffix
        inside = Counter(PurePosixPath(photo).suffix for photo in photos)
        return {"images": f"{prefix}*{inside.most_common(1)[0][0]}", "masks": f"{prefix}*{pair.suffix}"}
    apart = pair.images != pair.masks and not pair.token
    return {"images": pair.images, "masks": pair.masks if apart else f"{prefix}*{pair.token}{pair.suffix}"}
