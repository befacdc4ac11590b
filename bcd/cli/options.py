"""What several commands share: their options, reading the suite, and saying how far long work is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from bcd.cli.terminal import say
from bcd.train.signals import Stopped

if TYPE_CHECKING:
    from bcd.config.schema import suites
    from bcd.data.acquire.download import Progress

Suite = Annotated[
    str | None, typer.Option("--suite", "-s", help="Name of a file in params/suites/.", show_default=False)
]
Table = Annotated[
    str | None, typer.Option("--table", "-t", help="One table of the suite; all by default.", show_default=False)
]


def load(suite: str | None) -> tuple[suites.Params, suites.Suite]:
    """All params, and a suite by name, the default one for None."""
    from bcd.config.load import default_suite, load_params
    from bcd.config.suites import load_suite

    return load_params(), load_suite(default_suite() if suite is None else suite)


@contextmanager
def stopping(kept: str) -> Iterator[None]:
    """Around a command, or a part of it, after whose end by a signal another sentence is true than of others."""
    try:
        yield
    except Stopped as stopped:
        raise Stopped(stopped.signal, f"stopped by {stopped.signal.name}; {kept}") from None


def progress(interval: float = 2.0) -> Progress:
    """Says how far a download, an unpacking or a folder of images is, at most once in `interval` seconds.

    Of what it has spoken of it also says the end.
    """
    last = time.monotonic()
    spoken: set[str] = set()

    def said(what: str, done: int, total: int | None) -> None:
        nonlocal last
        due = time.monotonic() - last >= interval
        if due or (done == total and what in spoken):
            last = time.monotonic()
            spoken.add(what)
            say(f"{what}: {done}{f' of {total}' if total else ''}")
            if done == total:
                spoken.discard(what)  # what is done again begins anew

    return said
