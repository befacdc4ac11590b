"""`bcd fetch` and `bcd check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd.cli.options import progress
from bcd.cli.terminal import put, say
from bcd.errors import UserError, pick


def fetch(
    name: Annotated[str, typer.Argument(help="A dataset of params/datasets.yaml.")],
    mirror: Annotated[
        Path | None,
        typer.Option(envvar="BCD_MIRROR", help="Folder of archives with a MANIFEST.csv; tried before the network."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Fetch and unpack again even if everything is there.")] = False,
    verify: Annotated[bool, typer.Option(help="Only compare every file on disk with the manifest.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take over the files that you have changed in data/NAME.")
    ] = False,
) -> None:
    """Bring a dataset to data/NAME: from a mirror, from its public address, or from its generator."""
    from bcd.config.load import load_params
    from bcd.data.acquire.obtain import accepted, obtain, verified
    from bcd.data.findings import warnings

    datasets = load_params().datasets
    dataset = datasets[pick(datasets, name, "params/datasets.yaml").files]  # a variant has the files of another dataset
    root = Path("data") / dataset.files
    if verify:
        put(f"{root}: {len(verified(dataset.files, dataset, root).files)} files as recorded")
        return
    if accept and force:
        raise UserError("--accept keeps what you have changed and --force drops it; say one of them")
    if accept:
        done = accepted(dataset.files, dataset, root, progress=progress())
    else:
        say(f"{dataset.files}: {dataset.source}; licence: {dataset.licence}")
        done = obtain(dataset.files, dataset, root, mirror_dir=mirror, progress=progress(), force=force)
    note = f" ({done.note})" if done.note else ""
    put(f"{root}: {', '.join(f'{n} {split}' for split, n in done.splits.items())}; {done.origin}{note}")
    for sentence in warnings(done.check):
        say(f"warning: {sentence}")


def check(name: Annotated[str, typer.Argument(help="A dataset of params/datasets.yaml that is fetched.")]) -> None:
    """Look at every image and label of a dataset in data/NAME, and print what it holds: `bcd fetch` does it once."""
    from bcd.config.load import load_params
    from bcd.data.acquire.obtain import checked
    from bcd.data.findings import table, warnings

    datasets = load_params().datasets
    dataset = datasets[pick(datasets, name, "params/datasets.yaml").files]
    found = checked(dataset.files, dataset, Path("data") / dataset.files, progress=progress())
    for line in table(found.check):
        put(line)
    for sentence in warnings(found.check):
        put(f"warning: {sentence}")
