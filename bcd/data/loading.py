"""Preparing items ahead in worker processes, with readable errors."""

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from bcd.errors import UserError

DEATH = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) ([^.]*)")


Key = TypeVar("Key", contravariant=True)
Item = TypeVar("Item", covariant=True)
Loaded = TypeVar("Loaded")


class Keyed(Protocol[Key, Item]):
    """Anything that gives an item for a key, or the UserError that kept it from doing so."""

    def __getitem__(self, key: Key, /) -> Item | UserError: ...


def load(dataset: Keyed[Key, Item], keys: Sequence[Key], workers: int) -> Iterator[Item]:
    """`dataset[key]` for every key in order, prepared by `workers` processes (0: by this one).

    An item that is a UserError is raised: it keeps its one sentence, which torch would bury in a traceback if
    a worker raised it. Raises UserError when a worker dies.
    """
    loader: DataLoader[Item | UserError] = DataLoader(
        cast("Dataset[Item | UserError]", dataset),  # torch's Dataset is a class, but all it calls is this method
        sampler=keys,
        batch_size=None,
        collate_fn=as_it_is,
        num_workers=workers,
        worker_init_fn=_leave_ctrl_c,
        prefetch_factor=2 if workers else None,
        # fork, so that `read` may be any closure; workers never touch an accelerator.
        multiprocessing_context="fork" if workers else None,
        # Without its own generator the loader would draw a number from the global one.
        generator=torch.Generator(),
    )
    with dead_workers_named():
        for item in loader:
            if isinstance(item, UserError):
                raise item
            yield item


def as_it_is(item: Loaded) -> Loaded:
    """Collate nothing: the datasets return whole batches."""
    return item


def _leave_ctrl_c(_worker: int) -> None:
    """Ctrl-C reaches the workers, too; it is their parent that ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def dead_workers_named() -> Iterator[None]:
    """Turn torch's report of a dead loading process into a UserError naming its signal or exit code.

    torch raises the report from a signal handler, so it can also strike between two batches: a loop over
    `load` should stand inside this context as well.
    """
    try:
        yield
    except RuntimeError as error:
        # The signal handler's report, where there is one, is the cause of a vaguer one of the loader.
        reports = (DEATH.search(str(text)) for text in (error.__cause__, error))
        fate = next((report[1] for report in reports if report), None)
        if fate is None:
            raise
        fate = fate.replace("is killed", "was killed")
        raise UserError(
            f"a data loading process {fate}; it may have run out of memory: use fewer workers, "
            "or workers 0 to see where it dies"
        ) from error
