"""CSV in long form, for further analysis: one line per row and metric with full precision."""

from __future__ import annotations

import csv
import io

from bcd.report.content import MeasuredRow, PairBlock, TableContent
from bcd.report.render import text

COLUMNS = (
    "suite", "table", "dataset", "teacher", "student", "method", "metric", "runs",
    "mean", "std", "difference", "low", "high", "p", "significant", "published", "published_source",
)  # fmt: skip
EXPORT_COLUMNS = (
    "export", "bytes", "time", *(f"pytorch_{field}" for field in ("difference", "low", "high", "p", "significant")),
)  # fmt: skip
PARTIAL_COLUMNS = ("missing", "partial")
Field = str | float | None


def render(content: TableContent) -> str:
    """The lines; a field that does not apply is empty.

    A table of exports has columns for the form, what its files cost, and the difference to PyTorch.
    A partial table has two columns more. They say how many runs the row lacks and, on every line, what the whole table
    lacks.
    """
    stream = io.StringIO()
    columns = (*COLUMNS, *(EXPORT_COLUMNS if content.exported else ()), *(PARTIAL_COLUMNS if content.partial else ()))
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for pair in content.pairs:
        for row in pair.rows:
            about = _about(content, pair, row)
            for metric in content.metrics:
                writer.writerow(about | _numbers(row, metric) | _published(content, row, metric))
    return stream.getvalue()


def _about(content: TableContent, pair: PairBlock, row: MeasuredRow) -> dict[str, Field]:
    """What all lines of a row share."""
    facts: dict[str, Field] = {
        "suite": content.suite,
        "table": content.table,
        "dataset": pair.dataset,
        "teacher": pair.teacher.name,
        "student": pair.student.name,
        "method": row.method,
        "runs": len(row.runs),
    }
    if content.exported:
        facts["export"] = pair.export
        if row.file:
            facts |= {"bytes": row.file.bytes, "time": row.file.time}
    if content.partial:
        lacking = content.expected_runs(row) - len(row.runs)
        facts |= {"missing": lacking, "partial": text.partial_text(content.partial)}
    return facts


def _numbers(row: MeasuredRow, metric: str) -> dict[str, Field]:
    cell = row.cells[metric]
    numbers: dict[str, Field] = {"metric": metric, "mean": cell.mean, "std": cell.std}
    for prefix, found in (("", cell.difference), ("pytorch_", cell.to_pytorch)):
        if found:
            fields = {"difference": found.mean, "low": found.low, "high": found.high, "p": found.p}
            numbers |= {prefix + name: value for name, value in fields.items()}
            numbers[f"{prefix}significant"] = str(found.significant).lower()
    return numbers


def _published(content: TableContent, row: MeasuredRow, metric: str) -> dict[str, Field]:
    beside = row.published.get(metric)
    if beside is None:
        return {}
    source = next(source for source in content.sources if source.number == beside.source)
    return {"published": beside.value, "published_source": text.source_text(source)}
