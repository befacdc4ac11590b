"""LaTeX, for papers."""

from __future__ import annotations

import re
from collections.abc import Callable

from bcd.report.content import Comparison, MeasuredRow, Source, TableContent, Verdict
from bcd.report.render import text

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "×": r"$\times$", "Δ": r"$\Delta$",
    "†": r"$^{\dagger}$", "−": "$-$", "–": "--", "°": r"$^{\circ}$", "≤": r"$\le$", "≥": r"$\ge$",
}  # fmt: skip


def render(content: TableContent) -> str:
    """A `table*` to be \\input into a document that uses booktabs and, for sources, url.

    Values and published numbers stand above, differences below, and then the sources.
    """
    metrics, main, beside = content.metrics, content.main_metrics, text.published_metrics(content)
    packages = "booktabs,url" if beside else "booktabs"
    lines = [rf"% \usepackage{{{packages}}}", r"\begin{table*}", r"\centering", r"\small"]
    lines += [rf"\caption{{{escape(' '.join([content.caption, *content.notes]))}}}"]
    lines += [rf"\label{{tab:{content.suite}-{content.table}{'-partial' if content.partial else ''}}}"]
    files = text.FILE_HEADS if content.exported else ()
    heads = [*map(text.title, metrics), *files, *(f"published {text.title(m)}" for m in beside)]
    lines += _tabular(content, heads, lambda row: _values(row, metrics, beside, files=bool(files)))
    if content.comparisons:
        lines += ["", r"\medskip"]
        heads = [f"Δ {text.title(m)}" for m in main]
        lines += _tabular(content, heads, lambda row: _compared([row.cells[m].difference for m in main]))
    if content.exported:
        lines += ["", r"\medskip"]
        heads = [f"Δ {text.title(m)} to PyTorch" for m in main]
        lines += _tabular(content, heads, lambda row: _compared([row.cells[m].to_pytorch for m in main]))
    if beside:
        lines += ["", r"\medskip", r"\raggedright\footnotesize"]
        lines += [rf"[{source.number}] {_source(source)}\par" for source in content.sources]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def escape(words: str) -> str:
    """`words` with everything escaped that LaTeX would not print as it stands."""
    return "".join(SPECIAL.get(character, character) for character in words)


def _tabular(content: TableContent, heads: list[str], cells: Callable[[MeasuredRow], list[str]]) -> list[str]:
    """One line for each row of which `cells` makes any."""
    lines = [rf"\begin{{tabular}}{{l{'r' * len(heads)}}}", r"\toprule"]
    lines.append(_line(["Method", *map(escape, heads)]))
    for pair in content.pairs:
        about = escape(text.heading(pair))
        lines += [r"\midrule", rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{\emph{{{about}}}}} \\"]
        for row in pair.rows:
            if texts := cells(row):
                lines.append(_line([escape(text.row_title(row, content)), *texts]))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _line(cells: list[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _values(row: MeasuredRow, metrics: list[str], beside: list[str], *, files: bool) -> list[str]:
    values = [_marked(text.value_text(row.cells[m]), row.cells[m].verdict) for m in metrics]
    values += map(escape, text.file_texts(row)) if files else []
    return [*values, *(escape(text.published_text(row, m)) for m in beside)]


def _compared(found: list[Comparison | None]) -> list[str]:
    """Nothing at all where a row is compared with nothing."""
    return [_marked(text.difference_text(one), one.verdict if one else None) for one in found] if any(found) else []


def _marked(words: str, verdict: Verdict) -> str:
    escaped = escape(re.sub(r"(?<![\w])-(?=\d)", "−", words))
    return {"better": rf"\textbf{{{escaped}}}", "worse": rf"{escaped}$^{{\dagger}}$", None: escaped}[verdict]


def _source(source: Source) -> str:
    return text.source_text(source, escape, lambda url: rf"\url{{{url}}}")
