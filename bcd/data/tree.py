"""The files of a dataset, just unpacked or recorded by a manifest: what a label format lists its samples from."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bcd.data.acquire import manifest
from bcd.data.acquire.manifest import File, SplitFacts
from bcd.data.formats import ArchivedFormat, GeneratedFormat
from bcd.errors import UserError

REMEDY = "check the archives' addresses or the mirror"


@dataclass(frozen=True)
class Sample:
    """One image and its label, as paths relative to the dataset's folder; `name` is for messages."""

    name: str
    image: str
    label: str


@dataclass(frozen=True)
class Tree:
    """Every file's path, relative to the dataset's folder, and a way to read one."""

    paths: Collection[str]
    read: Callable[[str], bytes]


def recorded(root: Path) -> Tree:
    """The tree of a fetched dataset; what is read is compared with the manifest. Raises what `manifest.load` raises."""
    found = manifest.load(root)
    return Tree(found.files, found.read)


def unpacked(root: Path) -> Tree:
    """The tree of a directory that has no manifest yet."""
    paths = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return Tree(paths, lambda path: (root / path).read_bytes())


def split_facts(
    root: Path, files: Mapping[str, File], *, reader: ArchivedFormat | GeneratedFormat, splits: Iterable[str]
) -> SplitFacts:
    """What the splits of the dataset in `root` consist of; opens no image and no mask.

    files: those in `root`, by path. Raises what the format's `samples` raises, and UserError for a file that it reads
    and that is not as recorded.
    """
    tree = Tree(files, lambda path: manifest.read(root, files[path], root.name))
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
    """The names in a list file, one per line. Raises UserError for a missing file, several words, a name twice."""
    if path not in tree.paths:
        raise UserError(f"the archives have no {path}; {REMEDY}")
    names = [line.strip() for line in tree.read(path).decode(errors="replace").splitlines() if line.strip()]
    if wrong := [name for name in names if len(name.split()) > 1]:
        raise UserError(f"{path}: '{wrong[0]}' is not one name; {REMEDY}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} lists {twice} twice; {REMEDY}")
    return names


def complete(tree: Tree, samples: Sequence[Sample]) -> list[Sample]:
    """The samples, all of whose files exist; raises UserError naming the first image or mask that does not."""
    for sample in samples:
        if sample.image not in tree.paths:
            raise UserError(f"image {sample.image} is missing; {REMEDY}")
        if sample.label not in tree.paths:
            raise UserError(f"image {sample.image} has no mask {sample.label}; {REMEDY}")
    return list(samples)


def paired(tree: Tree, images: tuple[str, str], labels: tuple[str, str]) -> list[Sample]:
    """The images of a folder with their masks, in the order of their paths.

    images, labels: prefix and suffix of a path; what stands between is the same for an image and its mask. Raises
    UserError for one without the other.
    """
    keys, masks = _between(tree, *images), _between(tree, *labels)
    if stray := masks - keys:
        raise UserError(f"mask {min(stray).join(labels)} has no image {min(stray).join(images)}; {REMEDY}")
    samples = [Sample(PurePosixPath(key).name, key.join(images), key.join(labels)) for key in sorted(keys)]
    return complete(tree, samples)


def _between(tree: Tree, prefix: str, suffix: str) -> set[str]:
    ends = (path for path in tree.paths if path.startswith(prefix) and path.endswith(suffix))
    return {path[len(prefix) : len(path) - len(suffix)] for path in ends}
