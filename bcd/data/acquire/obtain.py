"""From a dataset's params to its files on disk: fetched, or generated."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path

from bcd.config.schema import Dataset
from bcd.data import tree
from bcd.data.acquire import fetch, mirror
from bcd.data.acquire.download import Progress, quiet
from bcd.data.acquire.manifest import Manifest


def obtain(
    name: str, dataset: Dataset, root: Path, *, mirror_dir: Path | None, progress: Progress = quiet, force: bool = False
) -> Manifest:
    """Make `root` (`data/<name>/`) hold the dataset and return its manifest; nothing to do costs nothing.

    Raises what `bcd.data.acquire.fetch.fetch` raises, and UserError when the split sizes are not those of the params,
    unless
    it is a sample from a mirror, whose note then says how much of the dataset it is.
    """
    reader = importlib.import_module(f"bcd.data.formats.{dataset.format}")
    if dataset.generator:
        done = _generated(name, dataset, root, reader, progress, force)
    else:
        archives = tuple(mirror.Archive(**archive.model_dump()) for archive in dataset.archives)
        count = partial(tree.count_splits, reader)
        source = fetch.Source(name, archives, dataset.licence, dataset.source, count, dataset.splits)
        done = fetch.fetch(source, root, mirror_dir, progress, force)
    # What was fetched before may have been asked for with other splits.
    fetch.split_note(str(root), done.splits, dataset.splits, done.origin == "mirror" and not done.official)
    return done


def _generated(name: str, dataset: Dataset, root: Path, reader, progress: Progress, force: bool) -> Manifest:
    asked = {"splits": dataset.splits, **dataset.generator.model_dump()}

    def build(stage: Path) -> dict[str, int]:
        reader.generate(stage, **asked, progress=lambda done, total: progress(name, done, total))
        return dataset.splits

    return fetch.generate(name, root, asked, build, licence=dataset.licence, source=dataset.source, force=force)
