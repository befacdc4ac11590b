"""`bcd tables`, `panels`, `report` and `summary`: what is made of a suite's finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd.cli.options import Suite, Table, load
from bcd.cli.terminal import announce, columns, put
from bcd.errors import pick

if TYPE_CHECKING:
    from bcd.config.schema import suites


def _tables(suite: suites.Suite, table: str | None) -> list[str]:
    names = {t.name: t.name for t in suite.tables}
    return [pick(names, table, "--table")] if table else list(names)


def tables(
    suite: Suite = None,
    table: Table = None,
    show: Annotated[bool, typer.Option(help="Only print the main metrics of the tables that exist.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Build from the runs that exist; what is missing is marked and counted.")
    ] = False,
) -> None:
    """Build tables and their figures from run records: results/SUITE/tables/*.{md,tex,csv,json}, figures/*.png.

    A missing run is an error. With --partial it is not: the tables of what exists are called PARTIAL, say which runs
    they lack and lie apart, as results/SUITE/partial/*.partial.{md,tex,csv,json,png}.
    """
    from bcd.report import tables as building

    params, wanted = load(suite)
    for name in _tables(wanted, table):
        if show:
            put(building.show(Path("results"), wanted.name, name, partial=partial, columns=columns()))
        else:
            for path in building.build(params, wanted, name, Path("results"), partial=partial):
                put(path)
    if show and not partial:
        _say_outdated(params, wanted)
        put(f"with captions and all metrics: results/{wanted.name}/tables/*.md (also .tex, .csv, .json)")
        put(f"to look at: results/{wanted.name}/report.html, which `bcd report --suite {wanted.name} --open` shows")
        put(f"figures and panels: results/{wanted.name}/figures/; how to read them: docs/reference/tables.md")
        put(f"runs, curves and predictions side by side: bcd track --ui --suite {wanted.name}")


def _say_outdated(params: suites.Params, suite: suites.Suite) -> None:
    from bcd.planning.outdated import outdated
    from bcd.runs.expand import suite_rows

    if wrong := outdated(params, suite, suite_rows(params, suite)):
        path, why = next(iter(wrong.items()))
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        again = f"`snakemake --config suite={suite.name}` makes them again"
        announce(f"not today's: {path} ({why}){more}; {again}")


def panels(suite: Suite = None, table: Table = None) -> None:
    """Draw image, label, teacher and students side by side with boundary errors marked: figures/*-panels.png."""
    from bcd.report.panels import table_panels

    params, wanted = load(suite)
    for name in _tables(wanted, table):
        put(table_panels(params, wanted, name, Path("results"), Path("data")))


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
