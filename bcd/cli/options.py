"""What several commands share: their options, reading the suite, and saying how far long work is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from bcd.cli.terminal import say

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


def progress() -> Progress:
    """Says how far a download, an unpacking or a folder of images is, at most once in two seconds."""
    last = [time.monotonic()]

    def said(what: str, done: int, total: int | None) -> None:
        if time.monotonic() - last[0] >= 2:
            last[0] = time.monotonic()
            say(f"{what}: {done}{f' of {total}' if total else ''}")

    return said
