"""The figure of a table: differences to its baseline with their intervals, one panel for each main metric."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from bcd.report.content import TEACHER, MeasuredRow, PairBlock, TableContent
from bcd.report.render.text import NOT_RUN, heading, partial_text, row_title, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"better": "#1b7837", "worse": "#b2182b", None: "#404040"}
SEED_COLOUR, SEED_OFFSET = "#9ecae1", 0.25  # dots lie below their bar, in rows
ROW_INCHES, PANEL_INCHES, MARGIN_INCHES = 0.3, 2.6, 1.5
DPI = 150


def forest(content: TableContent) -> bytes:
    """PNG bytes of a forest plot of a table's content; equal tables give equal bytes.

    Rows of panels are pairs, columns main metrics, in a panel methods run downwards. The bar is the 95 % interval,
    the square the mean, both coloured where significant; light dots are the differences of single seeds.
    """
    import matplotlib.style

    with matplotlib.style.context("default"):  # not the user's
        figure = _figure(content)
        data = BytesIO()
        figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _figure(content: TableContent) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pairs, metrics = content.pairs, content.main_metrics
    alone = (TEACHER, content.baseline)
    compared = [[row for row in pair.rows if row.method not in alone] for pair in pairs]
    heights = [len(rows) * ROW_INCHES + MARGIN_INCHES for rows in compared]
    figure = Figure(figsize=(PANEL_INCHES * len(metrics) + MARGIN_INCHES, sum(heights)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if content.partial:
        figure.suptitle(partial_text(content.partial), color=COLOURS["worse"], fontweight="bold", fontsize=11)
    blocks = figure.subfigures(len(pairs), 1, height_ratios=heights, squeeze=False)[:, 0]
    for block, pair, rows in zip(blocks, pairs, compared, strict=True):
        block.suptitle(f"{heading(pair)}: difference to {content.baseline}", fontsize=10)
        panels = block.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for panel, metric in zip(panels, metrics, strict=True):
            _panel(panel, metric, rows, content.baseline, _gap(pair, content.baseline, metric))
        panels[0].set_yticks(range(len(rows)), [row_title(row, content) for row in rows])
    return figure


def _panel(panel: Axes, metric: str, rows: list[MeasuredRow], baseline: str, gap: float | None) -> None:
    for y, row in enumerate(rows):
        found = row.cells[metric].difference
        if found is None:
            why = "nothing to compare with" if row.runs else NOT_RUN
            panel.text(0.5, y, why, transform=panel.get_yaxis_transform(), ha="center", va="center", fontsize=8)
            continue
        seeds = [v for v in found.values if v is not None]
        panel.plot(seeds, [y + SEED_OFFSET] * len(seeds), "o", color=SEED_COLOUR, markersize=3.5, zorder=1)
        if found.mean is None or found.low is None or found.high is None:
            continue
        colour = COLOURS[row.cells[metric].verdict]
        panel.plot([found.low, found.high], [y, y], color=colour, linewidth=1.4, zorder=2)
        panel.plot([found.mean], [y], "s", color=colour, markersize=4.5, zorder=3)
    panel.axvline(0, color="black", linewidth=0.8, zorder=0)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_title(f"Δ {title(metric)}", fontsize=9)
    panel.set_xlabel(f"teacher − {baseline}: {'n/a' if gap is None else f'{gap:+.2f}'}", fontsize=8)
    panel.tick_params(labelsize=8, length=2)
    panel.grid(axis="x", color="#e5e5e5", linewidth=0.6, zorder=0)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _gap(pair: PairBlock, baseline: str, metric: str) -> float | None:
    """How far the row that others are compared with is from the teacher."""
    teacher, other = (pair.row(method).cells[metric].mean for method in (TEACHER, baseline))
    return None if teacher is None or other is None else teacher - other
