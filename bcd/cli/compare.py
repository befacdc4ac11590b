"""`bcd compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from bcd.cli.options import Suite, load
from bcd.cli.terminal import columns, put
from bcd.errors import UserError


def compare(
    a: Annotated[str, typer.Argument(help="A row: a method, TABLE:METHOD, or a run key or the end of one.")],
    b: Annotated[str, typer.Argument(help="Another row of the same table; the difference is B - A.")],
    suite: Suite = None,
    table: Annotated[
        str | None, typer.Option("--table", "-t", help="The table of both rows.", show_default=False)
    ] = None,
    metric: Annotated[
        list[str],
        typer.Option("--metric", "-m", help="Compare this metric only; may be repeated. The first orders the images."),
    ] = [],  # noqa: B006 - typer wants a list
    images: Annotated[
        int, typer.Option(min=1, max=10**6, help="How many images that gained and that lost most are named.")
    ] = 5,
    partial: Annotated[
        bool, typer.Option("--partial", help="Compare the seeds that both have where runs are missing.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON, with the trace of both rows.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print a line per metric, size, class and image.")] = False,
) -> None:
    """Compare two rows of a table: paired differences, by class, by size, and the images that moved most.

    Intervals and p-values are computed as in the tables, from the per-image results in results/store. But they are
    those of one comparison: the table's correction for many is not in them.

    bcd compare kd bcd

    bcd compare detection:none fgd --metric ap

    bcd compare bcd bcd@onnx-int8
    """
    from bcd.report.compare import compare_rows
    from bcd.report.render import comparison
    from bcd.runs.jsonfile import dump

    if json and csv:
        raise UserError("--json and --csv are two forms; say one of them")
    found = compare_rows(*load(suite), a, b, table=table, metrics=metric, images=images, partial=partial)
    text = dump(found) if json else comparison.render_csv(found) if csv else comparison.render(found, columns())
    put(text.removesuffix("\n"))
