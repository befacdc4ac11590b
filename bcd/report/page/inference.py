"""The claim that records answer and not tables: a distilled student costs no more at inference than another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bcd.report.content import TEACHER, PairBlock, TableContent
from bcd.report.page.verdicts import UNDISTILLED, Claim, Judgement, Verdict, task_of, tasks_of
from bcd.report.render.text import scaled


@dataclass(frozen=True)
class Size:
    """What a model costs at inference: parameters, and multiply-accumulates for one image."""

    parameters: int
    macs: int


def cost_claim(tables: Sequence[TableContent], sizes: Mapping[str, Size]) -> Claim:
    """The claim that a distilled student costs no more, with a verdict for each task.

    sizes: of the model of each run, by its key, as records say.
    """
    verdicts = [
        _verdict(task, [table for table in tables if task_of(table) == task], sizes) for task in tasks_of(tables)
    ]
    return Claim("No extra cost", "Does a distilled student cost more at inference than an undistilled one?", verdicts)


def _verdict(task: str, tables: Sequence[TableContent], sizes: Mapping[str, Size]) -> Verdict:
    """Whether every distilled student has the parameters and the operations of the undistilled one of its pair.

    The operations of a detector may be those of what it finds, so there its parameters decide.
    """
    blocks = [pair for table in tables for pair in table.pairs]
    compared = [
        (sizes[run.key], beside)
        for pair in blocks
        if (beside := _undistilled(pair, sizes))
        for row in pair.rows
        if row.method not in (TEACHER, UNDISTILLED)
        for run in row.runs
        if run.key in sizes
    ]
    if not compared:
        return Verdict(
            task, Judgement.UNTESTABLE, "It takes the records of a distilled student and an undistilled one.", []
        )
    other = sum(own.parameters != beside.parameters for own, beside in compared)
    busier = sum(own.macs != beside.macs for own, beside in compared)
    if other or (busier and task == "semantic"):
        words = f"{max(other, busier)} of {len(compared)} distilled students differ in parameters or operations."
        return Verdict(task, Judgement.CONTRADICTED, words, [])
    students = dict.fromkeys(
        f"{pair.student.name} ({_size(found)})" for pair in blocks if (found := _undistilled(pair, sizes))
    )
    words = (
        f"Each distilled student is the same network as the undistilled one: {', '.join(students)}. What a loss learns "
        "is never saved with it."
    )
    return Verdict(task, Judgement.SUPPORTED, f"{words}{_by_finds(compared) if busier else ''}", [])


def _by_finds(compared: Sequence[tuple[Size, Size]]) -> str:
    """How far the operations of detectors differ that compute more where they find more."""
    ratios = [own.macs / beside.macs - 1 for own, beside in compared]
    return (
        " A detector's second stage computes what its first one finds, so operations on the one image that was counted "
        f"differ by {100 * min(ratios):+.2g} to {100 * max(ratios):+.2g} %."
    )


def _undistilled(pair: PairBlock, sizes: Mapping[str, Size]) -> Size | None:
    runs = [run.key for row in pair.rows if row.method == UNDISTILLED for run in row.runs]
    return next((sizes[key] for key in runs if key in sizes), None)


def _size(size: Size) -> str:
    return f"{scaled(size.parameters)} parameters, {scaled(size.macs)} MACs"
