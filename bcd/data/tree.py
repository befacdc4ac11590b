"""The files of a dataset, just unpacked or recorded by a manifest: what a label format lists its samples from."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from bcd.data.acquire import manifest
from bcd.data.acquire.manifest import File, SplitFacts
from bcd.data.formats import ArchivedFormat, GeneratedFormat
from bcd.errors import UserError

NAMED = 10  # faults that a message lists before it only counts the rest
REMEDY = "check what the archives hold: those of params/datasets.yaml, of the mirror, or your own"


@dataclass(frozen=True)
class Sample:
    """One image and its label, as paths relative to the dataset's folder; `name` is for messages."""

    name: str
    image: str
    label: str


@dataclass(frozen=True)
class Tree:
    """Every file's path, relative to the dataset's folder, and a way to read one; `dataset` is for messages."""

    paths: Collection[str]
    read: Callable[[str], bytes]
    dataset: str


def recorded(root: Path) -> Tree:
    """The tree of a fetched dataset; what is read is compared with the manifest. Raises what `manifest.load` raises."""
    found = manifest.load(root)
    return Tree(found.files, found.read, found.dataset)


def listed_in(root: Path, files: Mapping[str, File], dataset: str) -> Tree:
    """The tree of the given files (by path), which may have no manifest yet; what is read is compared with them."""
    return Tree(files, lambda path: manifest.read(root, files[path], dataset), dataset)


def split_facts(
    tree: Tree, files: Mapping[str, File], *, reader: ArchivedFormat | GeneratedFormat, splits: Iterable[str]
) -> SplitFacts:
    """What the splits of a dataset consist of; opens no image and no mask.

    files: those of `tree`, by path. Raises what the format's `samples` raises.
    """
    samples = {split: reader.samples(tree, split) for split in splits}
    return {
        "splits": {split: len(listed) for split, listed in samples.items()},
        "split_sha256": {split: _sha256(reader, split, listed, files) for split, listed in samples.items()},
    }


def _sha256(reader: object, split: str, samples: Sequence[Sample], files: Mapping[str, File]) -> str:
    """A hash of the paths and bytes of a split's images and labels, and of its annotation file, if it has one."""
    annotations = getattr(reader, "annotation_file", lambda _split: "")(split)
    used = [path for sample in samples for path in (sample.image, sample.label)]
    used += [annotations] if annotations in files else []
    lines = (f"{path}\0{files[path].sha256}\n" for path in used)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def listed(tree: Tree, path: str) -> list[str]:
    """The names in a list file, one per line; a byte-order mark is none of a name.

    Raises UserError for a missing file, one that is not UTF-8, several words in a line, and a name twice.
    """
    if path not in tree.paths:
        raise UserError(f"the archives have no {path}; {REMEDY}")
    again = f"in the archive, and run `bcd fetch {tree.dataset}` again"
    try:
        text = tree.read(path).decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise UserError(f"the list {path} is not UTF-8 text; save it as UTF-8 {again}") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if wrong := [name for name in names if len(name.split()) > 1]:
        raise UserError(f"the list {path}: '{wrong[0]}' is not one name; write one name a line {again}")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UserError(f"the list {path} has {twice} twice; take one of the two lines out {again}")
    return names


def complete(tree: Tree, samples: Sequence[Sample]) -> list[Sample]:
    """The samples, all of whose files exist; raises UserError naming images or masks that do not."""
    missing = [f"image {one.image} is missing" for one in samples if one.image not in tree.paths]
    missing += [f"image {one.image} has no mask {one.label}" for one in samples if one.label not in tree.paths]
    if missing:
        wanted = next(path for one in samples for path in (one.image, one.label) if path not in tree.paths)
        raise UserError(f"{_named(missing)}; {_other_form(tree, wanted) or REMEDY}")
    return list(samples)


def paired(tree: Tree, images: tuple[str, str], labels: tuple[str, str]) -> list[Sample]:
    """The images of a folder with their masks, in the order of their paths.

    images, labels: prefix and suffix of a path; what stands between is the same for an image and its mask. Raises
    UserError for one without the other.
    """
    keys, masks = _between(tree, *images), _between(tree, *labels)
    if stray := sorted(masks - keys):
        lonely = [f"mask {key.join(labels)} has no image {key.join(images)}" for key in stray]
        raise UserError(f"{_named(lonely)}; {_other_form(tree, stray[0].join(images)) or REMEDY}")
    samples = [Sample(PurePosixPath(key).name, key.join(images), key.join(labels)) for key in sorted(keys)]
    return complete(tree, samples)


def _named(faults: Sequence[str]) -> str:
    """The first faults, and how many more there are."""
    more = f", and {len(faults) - NAMED} more like these" if len(faults) > NAMED else ""
    return ", ".join(faults[:NAMED]) + more


def _other_form(tree: Tree, path: str) -> str:
    """What to do where a file is called like `path`, but for the Unicode form of its name; "" where none is."""
    same = (other for other in tree.paths if normalize("NFC", other) == normalize("NFC", path))
    if next(same, None) is None:
        return ""
    return (
        "one of that name is there, written in another Unicode form (an umlaut as one character or as two, NFC or NFD, "
        "as archives of macOS have it); give both files the same form"
    )


def _between(tree: Tree, prefix: str, suffix: str) -> set[str]:
    ends = (path for path in tree.paths if path.startswith(prefix) and path.endswith(suffix))
    return {path[len(prefix) : len(path) - len(suffix)] for path in ends}
