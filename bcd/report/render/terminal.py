"""Plain text for a terminal, about 80 to 100 columns wide."""

from __future__ import annotations

from bcd.errors import counted
from bcd.printing import signed
from bcd.report.content import Cell, TableContent
from bcd.report.render import text


def render(content: TableContent, columns: int = text.WIDTH) -> str:
    """The main metrics and their differences; sentences are wrapped to `columns`."""
    main, baseline = content.main_metrics, content.baseline
    lines = [f"{text.headline(content)} ({counted(content.seeds, 'seed')}, mean ± std and difference to {baseline})"]
    names = [text.row_title(row, content) for pair in content.pairs for row in pair.rows]
    width = max(len(name) for name in ("method", *names))
    for pair in content.pairs:
        heads = [*(f"{text.title(m):^22}" for m in main), *(f"{head:>8}" for head in text.FILE_HEADS if pair.export)]
        lines += ["", text.heading(pair), _line("method", heads, width)]
        for row in pair.rows:
            files = [f"{words:>8}" for words in text.file_texts(row) if pair.export]
            lines.append(_line(text.row_title(row, content), [*(_cell(row.cells[m]) for m in main), *files], width))
    lines += ["", f"* significantly better than {baseline}, † significantly worse (Holm)"]
    for note in content.notes:
        lines += text.wrapped(note, columns)
    return "\n".join(lines) + "\n"


def _line(name: str, cells: list[str], width: int) -> str:
    return "  ".join([f"{name:<{width}}", *cells]).rstrip()


def _cell(cell: Cell) -> str:
    found, mark = cell.difference, {"better": "*", "worse": "†", None: " "}[cell.verdict]
    difference = f"{signed(found.mean)}{mark}" if found and found.mean is not None else ""
    return f"{text.value_text(cell):<14}{difference:>8}"
