"""Renderings of a measured table (`bcd.tables.measure`): Markdown, LaTeX, CSV and plain text."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

TITLES = {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc", "biou": "bIoU", "conn": "Conn", "frag": "Frag"}
COLUMNS = (
    "suite", "table", "dataset", "teacher", "student", "method", "metric", "runs",
    "mean", "std", "difference", "low", "high", "p", "significant",
)  # fmt: skip
NOTHING = "–"  # a cell that has no number by design: nothing to compare, or only one run
UNDEFINED = "n/a"  # a metric without a value, e.g. of classes that no image shows

TEX_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "±": r"$\pm$", "×": r"$\times$", "Δ": r"$\Delta$",
    "†": r"$^{\dagger}$", "−": "$-$", "–": "--", "°": r"$^{\circ}$", "≤": r"$\le$", "≥": r"$\ge$",
}  # fmt: skip


def title(metric: str) -> str:
    """A metric's column heading: `miou` -> mIoU, `trimap3` -> Trimap-3 (pixels)."""
    if match := re.fullmatch(r"(trimap|bf)(\d+)", metric):
        return f"{'Trimap' if match[1] == 'trimap' else 'BF'}-{match[2]}"
    return TITLES.get(metric, metric)


def heading(pair: dict[str, Any]) -> str:
    """What a block of rows is about, in words."""
    elsewhere = pair["teacher_dataset"] != pair["dataset"]
    trained = f" (trained on {pair['teacher_dataset']})" if elsewhere else ""
    return f"{pair['student']['name']} from {pair['teacher']['name']}{trained} on {pair['dataset']}"


def markdown(content: dict[str, Any]) -> str:
    """Each pair as one table: mean ± std of every metric, then the differences of the main metrics."""
    lines = [f"# {content['suite']}: {content['table']}", "", content["caption"], ""]
    heads = ["method", *map(title, content["metrics"]), *(f"Δ {title(m)}" for m in content["main_metrics"])]
    for pair in content["pairs"]:
        lines += [f"**{heading(pair)}**", "", _md_line(heads), _md_line(["---", *["---:"] * (len(heads) - 1)])]
        for row in pair["rows"]:
            cells = row["cells"]
            values = [_md_mark(value_text(cells[m]), cells[m]) for m in content["metrics"]]
            differences = [_md_mark(difference_text(cells[m]), cells[m]) for m in content["main_metrics"]]
            lines.append(_md_line([row["method"], *values, *differences]))
        lines.append("")
    for note in content["notes"]:
        lines += [note, ""]
    return "\n".join(lines[:-1]) + "\n"


def tex(content: dict[str, Any]) -> str:
    """A `table*` to be \\input into a document that uses booktabs: values above, differences below."""
    metrics, main = content["metrics"], content["main_metrics"]
    lines = [r"% \usepackage{booktabs}", r"\begin{table*}", r"\centering", r"\small"]
    lines += [rf"\caption{{{tex_escape(' '.join([content['caption'], *content['notes']]))}}}"]
    lines += [rf"\label{{tab:{content['suite']}-{content['table']}}}"]
    lines += _tex_tabular(content, [title(m) for m in metrics], metrics, value_text)
    if content["comparisons"]:
        lines += ["", r"\medskip"]
        lines += _tex_tabular(content, [f"Δ {title(m)}" for m in main], main, difference_text)
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def long_csv(content: dict[str, Any]) -> str:
    """One line per row and metric with full precision; a field that does not apply is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for pair in content["pairs"]:
        facts = {"suite": content["suite"], "table": content["table"], "dataset": pair["dataset"]}
        facts |= {role: pair[role]["name"] for role in ("teacher", "student")}
        for row in pair["rows"]:
            for metric in content["metrics"]:
                cell = row["cells"][metric]
                found = cell["difference"] or {}
                numbers = {name: found.get(name) for name in ("low", "high", "p")} | {"difference": found.get("mean")}
                significant = str(found["significant"]).lower() if found else None
                line = {"method": row["method"], "metric": metric, "runs": len(row["runs"]), "mean": cell["mean"]}
                writer.writerow(facts | line | {"std": cell["std"], "significant": significant} | numbers)
    return text.getvalue()


def terminal(content: dict[str, Any]) -> str:
    """The main metrics and their differences, about 80 columns wide."""
    main = content["main_metrics"]
    facts = f"{content['seeds']} seeds, mean ± std and difference to {content['baseline']}"
    lines = [f"{content['suite']}: {content['table']} ({facts})"]
    names = [row["method"] for pair in content["pairs"] for row in pair["rows"]]
    width = max(len(name) for name in ("method", *names))
    for pair in content["pairs"]:
        lines += ["", heading(pair), "  ".join([f"{'method':<{width}}", *(f"{title(m):^22}" for m in main)]).rstrip()]
        for row in pair["rows"]:
            cells = [_terminal_cell(row["cells"][m]) for m in main]
            lines.append("  ".join([f"{row['method']:<{width}}", *cells]).rstrip())
    lines += ["", f"* significantly better than {content['baseline']}, † significantly worse (Holm)", *content["notes"]]
    return "\n".join(lines) + "\n"


def value_text(cell: dict[str, Any]) -> str:
    """`57.20 ± 0.30`, or the mean alone where there is one run."""
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


def _tex_tabular(content: dict[str, Any], heads: list[str], metrics: list[str], text) -> list[str]:
    lines = [rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}", r"\toprule"]
    lines.append(_tex_line(["Method", *map(tex_escape, heads)]))
    for pair in content["pairs"]:
        lines += [r"\midrule", rf"\multicolumn{{{len(metrics) + 1}}}{{l}}{{\emph{{{tex_escape(heading(pair))}}}}} \\"]
        for row in pair["rows"]:
            cells = [row["cells"][m] for m in metrics]
            if text is difference_text and not any(cell["difference"] for cell in cells):
                continue
            lines.append(_tex_line([tex_escape(row["method"]), *(_tex_mark(text(cell), cell) for cell in cells)]))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _tex_line(cells: list[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _terminal_cell(cell: dict[str, Any]) -> str:
    found, mark = cell["difference"], {"better": "*", "worse": "†", None: " "}[verdict(cell)]
    difference = f"{_signed(found['mean'])}{mark}" if found and found["mean"] is not None else ""
    return f"{value_text(cell):<14}{difference:>8}"
