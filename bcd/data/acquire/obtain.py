"""From a dataset's params to its files on disk: fetched, or generated."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bcd.config.schema.data import Dataset, Generator
from bcd.data import tree
from bcd.data.acquire import fetch
from bcd.data.acquire.download import Progress, quiet
from bcd.data.acquire.manifest import Manifest, Request
from bcd.data.formats import FORMATS, ArchivedFormat, GeneratedFormat, load_format
from bcd.errors import UserError


def obtain(
    name: str, dataset: Dataset, root: Path, *, mirror_dir: Path | None, progress: Progress = quiet, force: bool = False
) -> Manifest:
    """Make `root` (`data/<name>/`) hold the dataset and return its manifest; nothing to do costs nothing.

    Raises what `bcd.data.acquire.fetch.fetch` raises, and UserError when the split sizes are not those of the params.
    A sample from a mirror may have others; its note then says how much of the dataset it is.
    """
    reader = load_format(dataset.format)
    if dataset.generator and not FORMATS[dataset.format].generated:
        raise UserError(f"params/datasets.yaml: {name}: format '{dataset.format}' is not generated; remove generator")
    if not dataset.generator and FORMATS[dataset.format].generated:
        raise UserError(f"params/datasets.yaml: {name}: format '{dataset.format}' is generated; give it a generator")
    if dataset.generator:
        done = _generated(name, dataset, dataset.generator, root, reader, progress, force)
    else:
        done = _fetched(name, dataset, root, reader, mirror_dir, progress, force)
    # What was fetched before may have been asked for with other splits.
    fetch.split_note(str(root), done.splits, dataset.splits, done.origin == "mirror" and not done.official)
    return done


def asked(dataset: Dataset) -> Request:
    """What decides which bytes a dataset has, as its manifest records it."""
    if generator := dataset.generator:
        return {"splits": dataset.splits, "seed": generator.seed, "size": generator.size}
    return fetch.request(dataset.archives)


def _fetched(
    name: str,
    dataset: Dataset,
    root: Path,
    reader: ArchivedFormat,
    mirror_dir: Path | None,
    progress: Progress,
    force: bool,
) -> Manifest:
    look = partial(tree.split_facts, reader=reader, splits=reader.SPLITS)
    source = fetch.Source(name, dataset.archives, dataset.licence, dataset.source, look, dataset.splits)
    return fetch.fetch(source, root, mirror_dir, progress, force)


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

    look = partial(tree.split_facts, reader=reader, splits=dataset.splits)
    return fetch.generate(
        name, root, asked(dataset), build, look, licence=dataset.licence, source=dataset.source, force=force
    )
