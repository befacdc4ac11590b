"""Renderings of a measured table (`bcd.report.tables.measure`): Markdown, LaTeX, CSV and plain text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

from bcd.report.headings import heading, headline, partial_text, row_title, title, wanted_runs

COLUMNS = (
    "suite", "table", "dataset", "teacher", "student", "method", "metric", "runs",
    "mean", "std", "difference", "low", "high", "p", "significant", "published", "published_source",
)  # fmt: skip
PARTIAL_COLUMNS = ("missing", "partial")
NOTHING = "–"  # a cell that has no number by design: nothing to compare, or only one run
UNDEFINED = "n/a"  # a metric without a value, e.g. of classes that no image shows
NOT_RUN = "not run"  # a cell of a partial table of which there is no run

TEX_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "×": r"$\times$", "Δ": r"$\Delta$",
    "†": r"$^{\dagger}$", "−": "$-$", "–": "--", "°": r"$^{\circ}$", "≤": r"$\le$", "≥": r"$\ge$",
}  # fmt: skip


def markdown(content: dict[str, Any]) -> str:
    """Each pair as one table: mean ± std of every metric, the differences of the main metrics, published numbers."""
    lines = [f"# {headline(content)}", "", content["caption"], ""]
    heads = ["method", *map(title, content["metrics"]), *(f"Δ {title(m)}" for m in content["main_metrics"])]
    beside = published_metrics(content)
    heads += [f"published {title(m)}" for m in beside]
    for pair in content["pairs"]:
        lines += [f"**{heading(pair)}**", "", _md_line(heads), _md_line(["---", *["---:"] * (len(heads) - 1)])]
        for row in pair["rows"]:
            cells = row["cells"]
            values = [_md_mark(value_text(cells[m]), cells[m]) for m in content["metrics"]]
            differences = [_md_mark(difference_text(cells[m]), cells[m]) for m in content["main_metrics"]]
            published = [published_text(row, m) for m in beside]
            lines.append(_md_line([row_title(row, content["seeds"]), *values, *differences, *published]))
        lines.append("")
    for source in content["sources"]:
        lines += [f"[{source['number']}] {source_text(source)}", ""]
    for note in content["notes"]:
        lines += [note, ""]
    return "\n".join(lines[:-1]) + "\n"


def tex(content: dict[str, Any]) -> str:
    """A `table*` to be \\input into a document that uses booktabs and, for sources, url.

    Values and published numbers stand above, differences below, and then the sources.
    """
    metrics, main, beside = content["metrics"], content["main_metrics"], published_metrics(content)
    packages = "booktabs,url" if beside else "booktabs"
    lines = [rf"% \usepackage{{{packages}}}", r"\begin{table*}", r"\centering", r"\small"]
    lines += [rf"\caption{{{tex_escape(' '.join([content['caption'], *content['notes']]))}}}"]
    lines += [rf"\label{{tab:{content['suite']}-{content['table']}{'-partial' if 'partial' in content else ''}}}"]
    heads = [*map(title, metrics), *(f"published {title(m)}" for m in beside)]
    lines += _tex_tabular(content, heads, lambda row: _tex_values(row, metrics, beside))
    if content["comparisons"]:
        lines += ["", r"\medskip"]
        lines += _tex_tabular(content, [f"Δ {title(m)}" for m in main], lambda row: _tex_differences(row, main))
    if beside:
        lines += ["", r"\medskip", r"\raggedright\footnotesize"]
        lines += [rf"[{source['number']}] {_tex_source(source)}\par" for source in content["sources"]]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def long_csv(content: dict[str, Any]) -> str:
    """One line per row and metric with full precision; a field that does not apply is empty.

    A partial table has two columns more: how many runs the row lacks, and on every line what the whole table lacks.
    """
    text = io.StringIO()
    sources = {source["number"]: source_text(source) for source in content["sources"]}
    partial = "partial" in content
    writer = csv.DictWriter(text, (*COLUMNS, *(PARTIAL_COLUMNS if partial else ())), lineterminator="\n")
    writer.writeheader()
    for pair in content["pairs"]:
        facts = {"suite": content["suite"], "table": content["table"], "dataset": pair["dataset"]}
        facts |= {role: pair[role]["name"] for role in ("teacher", "student")}
        for row in pair["rows"]:
            if partial:
                missing = wanted_runs(row, content["seeds"]) - len(row["runs"])
                facts |= {"missing": missing, "partial": partial_text(content)}
            for metric in content["metrics"]:
                cell = row["cells"][metric]
                found = cell["difference"] or {}
                numbers = {name: found.get(name) for name in ("low", "high", "p")} | {"difference": found.get("mean")}
                significant = str(found["significant"]).lower() if found else None
                line = {"method": row["method"], "metric": metric, "runs": len(row["runs"]), "mean": cell["mean"]}
                if beside := row["published"].get(metric):
                    line |= {"published": beside["value"], "published_source": sources[beside["source"]]}
                writer.writerow(facts | line | {"std": cell["std"], "significant": significant} | numbers)
    return text.getvalue()


def terminal(content: dict[str, Any]) -> str:
    """The main metrics and their differences, about 80 columns wide."""
    main = content["main_metrics"]
    facts = f"{content['seeds']} seeds, mean ± std and difference to {content['baseline']}"
    lines = [f"{headline(content)} ({facts})"]
    names = [row_title(row, content["seeds"]) for pair in content["pairs"] for row in pair["rows"]]
    width = max(len(name) for name in ("method", *names))
    for pair in content["pairs"]:
        lines += ["", heading(pair), "  ".join([f"{'method':<{width}}", *(f"{title(m):^22}" for m in main)]).rstrip()]
        for row in pair["rows"]:
            cells = [_terminal_cell(row["cells"][m]) for m in main]
            lines.append("  ".join([f"{row_title(row, content['seeds']):<{width}}", *cells]).rstrip())
    lines += ["", f"* significantly better than {content['baseline']}, † significantly worse (Holm)", *content["notes"]]
    return "\n".join(lines) + "\n"


def value_text(cell: dict[str, Any]) -> str:
    """`57.20 ± 0.30`, or the mean alone where there is one run."""
    if not cell["values"]:
        return NOT_RUN
    if cell["mean"] is None:
        return UNDEFINED
    return f"{cell['mean']:.2f}" + (f" ± {cell['std']:.2f}" if cell["std"] is not None else "")


def difference_text(cell: dict[str, Any]) -> str:
    """`+2.10 [+1.20, +3.00]`; a dash where nothing is compared."""
    found = cell["difference"]
    if not found:
        return NOTHING
    if found["mean"] is None or found["low"] is None:
        return UNDEFINED
    return f"{_signed(found['mean'])} [{_signed(found['low'])}, {_signed(found['high'])}]"


def published_metrics(content: dict[str, Any]) -> list[str]:
    """The metrics of which a published number stands anywhere in the table: the columns that these get."""
    rows = [row for pair in content["pairs"] for row in pair["rows"]]
    return [metric for metric in content["metrics"] if any(metric in row["published"] for row in rows)]


def published_text(row: dict[str, Any], metric: str) -> str:
    """`40.7 [3]`: the number as it was printed and that of its source; a dash where nothing is published."""
    beside = row["published"].get(metric)
    return f"{beside['columns']['value']} [{beside['source']}]" if beside else NOTHING


def source_text(source: dict[str, Any], escape: Callable[[str], str] = str, link: Callable[[str], str] = str) -> str:
    """`title: detail. url`, then the same of each doubt; `escape` and `link` adapt words and addresses to a format."""
    references = (source, *source["doubts"])
    return " Doubt: ".join(f"{escape('{title}: {detail}.'.format(**one))} {link(one['url'])}" for one in references)


def tex_escape(text: str) -> str:
    """`text` with everything escaped that LaTeX would not print as it stands."""
    return "".join(TEX_SPECIAL.get(character, character) for character in text)


def verdict(cell: dict[str, Any]) -> str | None:
    """`better` or `worse` than the baseline where that is significant, else None."""
    found = cell["difference"]
    if not found or not found["significant"]:
        return None
    return "better" if found["better"] else "worse"


def _signed(value: float) -> str:
    """Two decimals with a sign, but no sign for what rounds to nothing."""
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def _md_line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _md_mark(text: str, cell: dict[str, Any]) -> str:
    return {"better": f"**{text}**", "worse": f"{text} †", None: text}[verdict(cell)]


def _tex_mark(text: str, cell: dict[str, Any]) -> str:
    text = re.sub(r"(?<![\w])-(?=\d)", "−", text)
    escaped = tex_escape(text)
    return {"better": rf"\textbf{{{escaped}}}", "worse": rf"{escaped}$^{{\dagger}}$", None: escaped}[verdict(cell)]


def _tex_values(row: dict[str, Any], metrics: list[str], beside: list[str]) -> list[str]:
    values = [_tex_mark(value_text(row["cells"][m]), row["cells"][m]) for m in metrics]
    return [*values, *(tex_escape(published_text(row, m)) for m in beside)]


def _tex_differences(row: dict[str, Any], metrics: list[str]) -> list[str]:
    """Nothing at all where a row is compared with nothing."""
    cells = [row["cells"][m] for m in metrics]
    return [_tex_mark(difference_text(cell), cell) for cell in cells] if any(c["difference"] for c in cells) else []


def _tex_source(source: dict[str, Any]) -> str:
    return source_text(source, tex_escape, lambda url: rf"\url{{{url}}}")


def _tex_tabular(content: dict[str, Any], heads: list[str], cells: Callable[[dict[str, Any]], list[str]]) -> list[str]:
    """One line for each row of which `cells` makes any."""
    lines = [rf"\begin{{tabular}}{{l{'r' * len(heads)}}}", r"\toprule"]
    lines.append(_tex_line(["Method", *map(tex_escape, heads)]))
    for pair in content["pairs"]:
        lines += [r"\midrule", rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{\emph{{{tex_escape(heading(pair))}}}}} \\"]
        for row in pair["rows"]:
            if texts := cells(row):
                lines.append(_tex_line([tex_escape(row_title(row, content["seeds"])), *texts]))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _tex_line(cells: list[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _terminal_cell(cell: dict[str, Any]) -> str:
    found, mark = cell["difference"], {"better": "*", "worse": "†", None: " "}[verdict(cell)]
    difference = f"{_signed(found['mean'])}{mark}" if found and found["mean"] is not None else ""
    return f"{value_text(cell):<14}{difference:>8}"
