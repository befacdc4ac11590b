"""What the tables of a suite say of the claims that it was made to test: tables in, sentences out.

The rule is that of docs/claims.md: a claim is judged by the marks of the rows that it speaks of, and a row without a
mark shows nothing, which is not the same as showing that there is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from bcd.config.schema.base import METRICS
from bcd.errors import counted
from bcd.printing import signed
from bcd.report.content import Comparison, MeasuredRow, PairBlock, TableContent
from bcd.report.render.text import heading, title
from bcd.report.stats import POWER

PROPOSED = ("brd", "bcd", "bckd")  # our readings of the papers' whole methods, docs/claims.md
UNDISTILLED = "none"
NAMES = {"biou": "Boundary IoU", "conn": "region connectivity"}
RULE = {
    "supported": "every row is marked as the claim needs it",
    "partly supported": "some rows are",
    "not supported": "none is, so the tables do not show it, which is not to say that it is false",
    "contradicted": "none is, and all are marked the other way",
    "not testable here": "the suite has no such row; what it would take is named",
}


class Judgement(StrEnum):
    """What may be said of a claim; `RULE` says when."""

    SUPPORTED = "supported"
    PARTLY = "partly supported"
    NOT_SHOWN = "not supported"
    CONTRADICTED = "contradicted"
    UNTESTABLE = "not testable here"


@dataclass(frozen=True)
class Evidence:
    """A row of a table that a claim speaks of.

    place     the pair, in words
    words     what the row shows, as a sentence or more
    """

    table: str
    place: str
    method: str
    metric: str
    difference: Comparison | None
    words: str


@dataclass(frozen=True)
class Verdict:
    """What the tables say of one claim on one task; `words` sum it up, `evidence` is each row."""

    task: str
    judgement: Judgement
    words: str
    evidence: list[Evidence]


@dataclass(frozen=True)
class Claim:
    """A claim of the papers, as a question, and what came out on each task that the suite has."""

    title: str
    question: str
    verdicts: list[Verdict]


@dataclass(frozen=True)
class Question:
    """A claim before it is judged: `metrics` of `methods` answer it, by task."""

    title: str
    words: str
    metrics: Mapping[str, tuple[str, ...]]
    methods: tuple[str, ...] = PROPOSED


QUESTIONS = (
    Question(
        "Boundary completeness",
        "Does distilling boundaries and context leave a student with more complete boundaries?",
        {"semantic": ("biou",), "instance": ("ap_boundary",)},
    ),
    Question(
        "Region connectivity",
        "Does it keep the regions of a class in one piece?",
        {"semantic": ("conn",)},
    ),
    Question(
        "Boundaries alone",
        "Does the boundary half mend boundaries without the context half?",
        {"semantic": ("biou",)},
        ("bcd-boundary",),
    ),
    Question(
        "Context alone",
        "Does the context half mend connectivity without the boundary half?",
        {"semantic": ("conn",)},
        ("bcd-context",),
    ),
    Question(
        "Detection and masks",
        "Does it help detectors, too?",
        {"detection": ("ap",), "instance": ("ap_mask",)},
    ),
)


def claims(tables: Sequence[TableContent]) -> list[Claim]:
    """Every claim that tables answer, with its verdicts, in the order of the page."""
    tasks = tasks_of(tables)
    return [_judged(question, tasks, tables) for question in QUESTIONS if set(question.metrics) & {*tasks} or not tasks]


def tasks_of(tables: Iterable[TableContent]) -> list[str]:
    """The tasks of the tables, each once."""
    return list(dict.fromkeys(task for table in tables if (task := task_of(table))))


def task_of(table: TableContent) -> str | None:
    """The task of a table, which the keys of its runs begin with; None where it has no run yet.

    A whole table whose runs were not kept is of the first task that has its metrics.
    """
    keys = (run.key for pair in table.pairs for row in pair.rows for run in row.runs)
    fitting = (task for task, metrics in METRICS.items() if not table.partial and {*table.metrics} <= {*metrics})
    return next(chain((key.partition("/")[0] for key in keys), fitting), None)


def judge(differences: Iterable[Comparison]) -> Judgement:
    """The rule of docs/claims.md for rows that a claim needs to be better."""
    marks = [one.verdict for one in differences]
    if not marks:
        return Judgement.UNTESTABLE
    if all(mark == "better" for mark in marks):
        return Judgement.SUPPORTED
    if any(mark == "better" for mark in marks):
        return Judgement.PARTLY
    return Judgement.CONTRADICTED if all(mark == "worse" for mark in marks) else Judgement.NOT_SHOWN


def row_words(method: str, metric: str, found: Comparison | None, comparisons: int) -> str:
    """What one row shows of a metric beside the undistilled student, in words that claim no more than it does.

    comparisons: the size of the family that the table corrects for.
    """
    name = NAMES.get(metric, title(metric))
    first = name[0].upper() + name[1:]
    if found is None:
        return f"{method} has no run beside one of {UNDISTILLED} yet, so nothing is said of {name}."
    if found.mean is None or found.low is None or found.high is None:
        return f"{first} of {method} has no difference that is defined, as no image shows what it measures."
    family = counted(comparisons, "comparison")
    size = f"{abs(found.mean):.2f} points {'higher' if found.mean > 0 else 'lower'}"
    interval = f"95 % interval {signed(found.low)} to {signed(found.high)}"
    if found.significant:
        said = f"{first} is {size} with {method} than with {UNDISTILLED} ({interval})"
        said += f", significantly so after Holm's correction over {family}."
    elif found.low > 0 or found.high < 0:
        said = f"{first} is {size} with {method} than with {UNDISTILLED} ({interval}). The interval excludes 0, but "
        said += f"the difference does not survive Holm's correction over {family}: not shown."
    else:
        said = f"No difference in {name} is shown for {method}: {signed(found.mean)} points ({interval}). "
        said += _power(found)
    return f"{said} One seed: the interval knows of other test images only." if len(found.values) == 1 else said


def _power(found: Comparison) -> str:
    """What the lack of a mark does not say."""
    says = "That is not evidence of no effect"
    if found.detectable is None or not 0.05 <= found.detectable <= 100:  # metrics end there, and 0.0 would say nothing
        return f"{says}."
    return (
        f"{says}: one of {found.detectable:.1f} points would have been marked with a probability of {100 * POWER:g} %."
    )


def _judged(question: Question, tasks: Sequence[str], tables: Sequence[TableContent]) -> Claim:
    wanted = [task for task in tasks if task in question.metrics]
    return Claim(question.title, question.words, [_verdict(question, task, tables) for task in wanted])


def _verdict(question: Question, task: str, tables: Sequence[TableContent]) -> Verdict:
    evidence = list(_evidence(question, task, tables))
    judgement = judge(one.difference for one in evidence if one.difference)
    partial = any(table.partial and table.partial.count for table in tables)
    return Verdict(task, judgement, _sum(question, task, judgement, evidence, partial), evidence)


def _evidence(question: Question, task: str, tables: Iterable[TableContent]) -> Iterator[Evidence]:
    """The rows of its methods in PyTorch, beside the undistilled student; the same runs count once."""
    seen = set()
    for table in tables:
        if table.baseline != UNDISTILLED or task_of(table) != task:
            continue
        for pair in (pair for pair in table.pairs if not pair.export):
            for row in (row for row in pair.rows if row.method in question.methods):
                for metric in (metric for metric in question.metrics[task] if metric in table.main_metrics):
                    # A mean of many digits tells runs apart where they were not kept.
                    runs = (metric, row.method, heading(pair), row.cells[metric].mean)
                    if runs not in seen:
                        seen.add(runs)
                        yield _of_row(table, pair, row, metric)


def _of_row(table: TableContent, pair: PairBlock, row: MeasuredRow, metric: str) -> Evidence:
    found = row.cells[metric].difference
    words = row_words(row.method, metric, found, table.comparisons)
    generated = " (generated data)" if pair.data and pair.data.origin == "generated" else ""
    return Evidence(table.table, f"{heading(pair)}{generated}", row.method, metric, found, words)


def _sum(question: Question, task: str, judgement: Judgement, evidence: Sequence[Evidence], partial: bool) -> str:
    rows = [one.difference for one in evidence if one.difference]
    names = " and ".join(NAMES.get(metric, title(metric)) for metric in question.metrics[task])
    methods = ("one of " if len(question.methods) > 1 else "") + ", ".join(question.methods)
    better, worse = (sum(one.verdict == side for one in rows) for side in ("better", "worse"))
    against = f" {_marked(worse, rows)} worse." if worse else ""
    words = {
        Judgement.SUPPORTED: f"{_all(len(rows))} better in {names} than the undistilled student.",
        Judgement.PARTLY: f"{_marked(better, rows)} better in {names}; the others do not show it.{against}",
        Judgement.NOT_SHOWN: (
            f"No row is marked better in {names}. The tables do not show it, which is not to say that it is false."
            f"{against}"
        ),
        Judgement.CONTRADICTED: f"{_all(len(rows))} worse in {names} than the undistilled student.",
        Judgement.UNTESTABLE: (f"It takes a table that tests {names} of {methods} beside {UNDISTILLED}, with runs."),
    }[judgement]
    return f"{words} Runs are missing, so this may change." if partial else words


def _marked(some: int, rows: Sequence[Comparison]) -> str:
    return f"{some} of {counted(len(rows), 'row')} {'is' if some == 1 else 'are'} marked"


def _all(rows: int) -> str:
    return "The one row is marked" if rows == 1 else f"All {rows} rows are marked"
