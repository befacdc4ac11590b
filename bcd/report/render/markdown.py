"""Markdown, for reading."""

from __future__ import annotations

from bcd.report.content import Comparison, MeasuredRow, TableContent, Verdict
from bcd.report.render import text


def render(content: TableContent) -> str:
    """Each pair as one table: mean ± std of every metric, the differences of the main metrics, published numbers."""
    lines = [f"# {text.headline(content)}", "", content.caption, ""]
    beside = text.published_metrics(content)
    heads = ["method", *map(text.title, content.metrics), *(text.FILE_HEADS if content.exported else ())]
    heads += [f"Δ {text.title(m)}" for m in content.main_metrics]
    heads += [f"Δ {text.title(m)} to PyTorch" for m in content.main_metrics if content.exported]
    heads += [f"published {text.title(m)}" for m in beside]
    for pair in content.pairs:
        lines += [f"**{text.heading(pair)}**", "", _line(heads), _line(["---", *["---:"] * (len(heads) - 1)])]
        lines += [_line([text.row_title(row, content), *_texts(row, content, beside)]) for row in pair.rows]
        lines.append("")
    for source in content.sources:
        lines += [f"[{source.number}] {text.source_text(source)}", ""]
    for note in content.notes:
        lines += [note, ""]
    return "\n".join(lines[:-1]) + "\n"


def _texts(row: MeasuredRow, content: TableContent, beside: list[str]) -> list[str]:
    """The cells of a row: values, what its file costs, differences, published numbers."""
    main = [row.cells[m] for m in content.main_metrics]
    values = [_marked(text.value_text(row.cells[m]), row.cells[m].verdict) for m in content.metrics]
    files = text.file_texts(row) if content.exported else []
    differences = [_compared(cell.difference) for cell in main]
    differences += [_compared(cell.to_pytorch) for cell in main if content.exported]
    return [*values, *files, *differences, *(text.published_text(row, m) for m in beside)]


def _compared(found: Comparison | None) -> str:
    return _marked(text.difference_text(found), found.verdict if found else None)


def _marked(words: str, verdict: Verdict) -> str:
    return {"better": f"**{words}**", "worse": f"{words} †", None: words}[verdict]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
