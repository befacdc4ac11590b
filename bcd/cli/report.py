"""`bcd report` and `bcd summary`: what is made of a suite's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd.cli.options import Suite, load
from bcd.cli.terminal import put


def report(
    suite: Suite = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Show the partial tables: results/SUITE/partial/report.partial.html.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
) -> None:
    """Build the page of a suite from its tables: results/SUITE/report.html, one file that needs no network.

    It has a verdict for each claim, the tables with their charts, the images, the learning curves, costs and traces.
    """
    import webbrowser

    from bcd.report.page.page import build

    page = build(*load(suite), Path("results"), Path("data"), partial=partial)
    put(page)
    if open_:
        webbrowser.open_new_tab(page.resolve().as_uri())


def summary(suite: Suite = None) -> None:
    """Write the main numbers of a suite's tables for `dvc metrics diff`, `dvc exp show` and `dvc plots diff`.

    results/SUITE/metrics.json has every main metric, results/SUITE/main.csv the first of each table.
    """
    from bcd.report.summary import build

    for path in build(load(suite)[1], Path("results")):
        put(path)
