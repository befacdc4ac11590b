"""The words that all formats of a table share: what columns, blocks and rows are called, and what stands in a cell."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable

from bcd.errors import counted
from bcd.printing import UNDEFINED, number_text, signed
from bcd.report.content import Cell, Comparison, MeasuredRow, PairBlock, PartialFacts, Source, TableContent

NOTHING = "–"  # a cell that has no number by design: nothing to compare, or only one run
NOT_RUN = "not run"  # a cell of a partial table of which there is no run
TITLES = {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc", "biou": "bIoU", "conn": "Conn", "frag": "Frag"}
WIDTH = 96  # columns of sentences in a terminal that is no narrower


# --- headings ------------------------------------------------------------------------------------------------------


def title(metric: str) -> str:
    """A metric's column heading: `miou` -> mIoU, `trimap3` -> Trimap-3 (pixels), `ap_s_mask` -> mask AP-S."""
    if match := re.fullmatch(r"(trimap|bf)(\d+)", metric):
        return f"{'Trimap' if match[1] == 'trimap' else 'BF'}-{match[2]}"
    if match := re.fullmatch(r"ap(50|75|_[sml])?(?:_(mask|boundary))?", metric):
        return f"{match[2] or ''} AP{(match[1] or '').replace('_', '-').upper()}".strip()
    return TITLES.get(metric, metric)


def heading(pair: PairBlock) -> str:
    """What a block of rows is about, in words."""
    elsewhere = pair.teacher_dataset != pair.dataset
    trained = f" (trained on {pair.teacher_dataset})" if elsewhere else ""
    form = f", as {pair.export}" if pair.export else ""
    return f"{pair.student.name} from {pair.teacher.name}{trained} on {pair.dataset}{form}"


def headline(content: TableContent) -> str:
    """`suite: table`, and what a partial one lacks."""
    name = f"{content.suite}: {content.table}"
    return f"{name} ({partial_text(content.partial)})" if content.partial else name


def partial_text(partial: PartialFacts) -> str:
    """`PARTIAL: 7 of 33 runs are missing`."""
    return f"PARTIAL: {partial.count} of {counted(partial.runs, 'run')} {'is' if partial.count == 1 else 'are'} missing"


def row_title(row: MeasuredRow, content: TableContent) -> str:
    """The method, and how many of the table's seeds its row has where these are not all of them."""
    there = len(row.runs)
    some = 0 < there < content.expected_runs(row)
    return f"{row.method} ({there} of {counted(content.seeds, 'seed')})" if some else row.method


# --- cells ---------------------------------------------------------------------------------------------------------


def value_text(cell: Cell) -> str:
    """`57.20 ± 0.30`, or the mean alone where there is one run."""
    return number_text(cell.mean, cell.std) if cell.values else NOT_RUN


def difference_text(found: Comparison | None) -> str:
    """`+2.10 [+1.20, +3.00]`; a dash where nothing is compared."""
    if found is None:
        return NOTHING
    if found.mean is None or found.low is None or found.high is None:
        return UNDEFINED
    return f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]"


FILE_HEADS = ("file", "time")


def file_texts(row: MeasuredRow) -> list[str]:
    """`12.3 MB` and `0.31`: the size of a row's exported files, and their time beside PyTorch's."""
    if row.file is None:
        return [NOTHING, NOTHING]
    return [f"{scaled(row.file.bytes)}B", NOTHING if row.file.time is None else f"{row.file.time:.2f}"]


def scaled(value: float) -> str:
    """Three significant digits with a metric prefix: 1234567 -> '1.23 M'."""
    for factor, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}"


def wrapped(sentence: str, width: int) -> list[str]:
    """The lines of a sentence in a terminal of `width` columns; a word that is longer keeps its line."""
    return textwrap.wrap(sentence, width, break_long_words=False, break_on_hyphens=False)


# --- published numbers ---------------------------------------------------------------------------------------------


def published_metrics(content: TableContent) -> list[str]:
    """The metrics of which a published number stands anywhere in the table: the columns that these get."""
    rows = [row for pair in content.pairs for row in pair.rows]
    return [metric for metric in content.metrics if any(metric in row.published for row in rows)]


def published_text(row: MeasuredRow, metric: str) -> str:
    """`40.7 [3]`: the number as it was printed and that of its source; a dash where nothing is published."""
    beside = row.published.get(metric)
    return f"{beside.columns['value']} [{beside.source}]" if beside else NOTHING


def source_text(source: Source, escape: Callable[[str], str] = str, link: Callable[[str], str] = str) -> str:
    """`title: detail. url`, then the same of each doubt.

    `escape` adapts words and `link` addresses to a format.
    """
    references = (source, *source.doubts)
    return " Doubt: ".join(f"{escape(f'{one.title}: {one.detail}.')} {link(one.url)}" for one in references)
