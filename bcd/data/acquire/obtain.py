"""From a dataset's params to its files on disk: fetched, or generated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from bcd.config.schema.data import Dataset, Generator
from bcd.data import tree
from bcd.data.acquire import by_hand, fetch, manifest
from bcd.data.acquire import folder as folders
from bcd.data.acquire.download import Progress, quiet
from bcd.data.acquire.look import Look, looked_again, split_note
from bcd.data.acquire.manifest import File, Manifest, Request, SplitFacts
from bcd.data.formats import FORMATS, ArchivedFormat, GeneratedFormat, reader_of, require_format
from bcd.errors import UserError
from bcd.files import read_bytes

LOOK = 2  # version of what `bcd.data.check` looks at


def obtain(
    name: str, dataset: Dataset, root: Path, *, mirror_dir: Path | None, progress: Progress = quiet, force: bool = False
) -> Manifest:
    """Make `root` (`data/<name>/`) hold the dataset and return its manifest; nothing to do costs nothing.

    Raises what `bcd.data.acquire.fetch.fetch` raises, and UserError when the split sizes are not those of the params.
    A sample from a mirror may have others; its note then says how much of the dataset it is.
    """
    require_format(dataset.format, None, f"params/datasets.yaml: {name}")
    if dataset.generator and not FORMATS[dataset.format].generated:
        raise UserError(f"params/datasets.yaml: {name}: format '{dataset.format}' is not generated; remove generator")
    if not dataset.generator and FORMATS[dataset.format].generated:
        raise UserError(f"params/datasets.yaml: {name}: format '{dataset.format}' is generated; give it a generator")
    if dataset.generator:
        done = _generated(name, dataset, dataset.generator, root, reader_of(dataset), progress, force)
    elif dataset.folder:
        done = _copied(name, dataset, dataset.folder, root, progress, force)
    else:
        done = _fetched(name, dataset, root, reader_of(dataset), mirror_dir, progress, force)
    # What was fetched before may have been asked for with other splits.
    _require_splits(done, dataset, root)
    return done


def asked(dataset: Dataset) -> Request:
    """What decides which bytes a dataset has, as its manifest records it."""
    if generator := dataset.generator:
        return {"splits": dataset.splits, "seed": generator.seed, "size": generator.size}
    if dataset.folder:  # which is not named: the same files elsewhere are the same data
        # Of the layout only what names files; a new meaning of their values copies nothing.
        layout = dataset.masks or dataset.coco
        fields = {"images", "masks", "annotations", "folders", "lists"}
        paths = layout.model_dump(include=fields) if layout else {}
        return {"folder": {"splits": sorted(dataset.splits), **paths}}
    return fetch.request(dataset.archives)


def looked_at_by(dataset: Dataset) -> Request:
    """What decides what a look at the files finds, beside them: some params, and what is looked at."""
    splits = {"splits": sorted(dataset.splits)} if dataset.masks or dataset.coco else {}  # others know their own
    fields = {"format", "classes", "things", "skip_annotations", "masks", "coco"}
    return {"version": LOOK, **dataset.model_dump(include=fields), **splits}


def checked(name: str, dataset: Dataset, root: Path, progress: Progress = quiet) -> Manifest:
    """The manifest of the dataset in `root`, every file of which is looked at again.

    Raises UserError where there is no dataset, a file is not as recorded, its splits are not those of the params, and
    what `bcd.data.check.check` raises.
    """
    found = looked_again(root, _look(name, dataset, reader_of(dataset), progress))
    _require_splits(found, dataset, root)
    return found


def _require_splits(found: Manifest, dataset: Dataset, root: Path) -> None:
    split_note(str(root), found.splits, dataset.splits, found.origin == "mirror" and not found.official)


def accepted(name: str, dataset: Dataset, root: Path, progress: Progress = quiet) -> Manifest:
    """The manifest of the dataset in `root` once it says what lies there; raises what `by_hand.accept` raises."""
    return by_hand.accept(root, _look(name, dataset, reader_of(dataset), progress), dataset.splits)


def verified(name: str, dataset: Dataset, root: Path) -> Manifest:
    """The manifest of the dataset in `root`; raises UserError for a file or an own archive that is not as recorded."""
    found = manifest.verify(root)
    if dataset.folder and fetch.folder_changed(found, folder := _expanded(dataset.folder), _used(name, dataset)):
        raise UserError(f"{folder} does not hold the files that were copied; run `bcd fetch {name}`")
    if other := fetch.replaced(found, _source(name, dataset, _look(name, dataset, reader_of(dataset), quiet))):
        raise UserError(f"{root / manifest.ARCHIVES / other} is not the one that was unpacked; run `bcd fetch {name}`")
    return found


def _look(name: str, dataset: Dataset, reader: Any, progress: Progress) -> Look:
    """How the dataset's files are looked at; `reader` is the module of its format."""
    splits = dataset.splits if dataset.generator else reader.SPLITS

    def facts(root: Path, files: Mapping[str, File]) -> SplitFacts:
        return tree.split_facts(tree.listed_in(root, files, name), files, reader=reader, splits=splits)

    def check(root: Path, files: Mapping[str, File], counts: Mapping[str, int]) -> Mapping[str, Any]:
        from bcd.data import check  # it reads images, which planning has no use for

        found = check.check(tree.listed_in(root, files, name), dataset, counts, progress)
        return {"of": looked_at_by(dataset), "splits": found}

    return Look(facts, check, looked_at_by(dataset))


def _fetched(
    name: str,
    dataset: Dataset,
    root: Path,
    reader: ArchivedFormat,
    mirror_dir: Path | None,
    progress: Progress,
    force: bool,
) -> Manifest:
    if not dataset.archives:
        raise UserError(
            f"params/datasets.yaml: {name} has no archives; name the folder of its files by `folder`, or pack them "
            f"into {name}.zip, put that into {root / manifest.ARCHIVES} and write archives: "
            f"[{{archive: {name}/{name}.zip, url: null}}]"
        )
    return fetch.fetch(
        _source(name, dataset, _look(name, dataset, reader, progress)), root, mirror_dir, progress, force
    )


def _copied(name: str, dataset: Dataset, folder: str, root: Path, progress: Progress, force: bool) -> Manifest:
    source = _source(name, dataset, _look(name, dataset, reader_of(dataset), progress))
    return fetch.copy(source, root, _expanded(folder), _used(name, dataset), asked(dataset), progress, force)


def _expanded(folder: str) -> Path:
    """The path as a shell has it: ~ is the home, and what is relative begins at the project."""
    return Path(folder).expanduser()


def _used(name: str, dataset: Dataset) -> Callable[[Path], Collection[str]]:
    """Which files of a folder the dataset consists of: those that the entry describes, else all."""

    def used(folder: Path) -> Collection[str]:
        paths = folders.paths_in(folder)
        if not FORMATS[dataset.format].described:
            return paths
        return reader_of(dataset).files(tree.Tree(paths, lambda path: read_bytes(folder / path), name))

    return used


def _source(name: str, dataset: Dataset, look: Look) -> fetch.Source:
    return fetch.Source(name, dataset.archives, dataset.licence, dataset.source, look, dataset.splits)


def _generated(
    name: str,
    dataset: Dataset,
    generator: Generator,
    root: Path,
    reader: GeneratedFormat,
    progress: Progress,
    force: bool,
) -> Manifest:
    def build(stage: Path) -> None:
        reader.generate(
            stage,
            seed=generator.seed,
            size=generator.size,
            splits=dataset.splits,
            progress=lambda done, total: progress(name, done, total),
        )

    look = _look(name, dataset, reader, progress)
    return fetch.generate(
        name, root, asked(dataset), build, look, licence=dataset.licence, source=dataset.source, force=force
    )
