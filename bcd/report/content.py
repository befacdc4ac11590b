"""What a table says, as types.

A table's `.json` file is its `TableContent`, and every other format renders it, so they cannot disagree. A number that
is undefined is None. docs/reference/tables.md says how to read a table.
"""

from __future__ import annotations

from operator import not_
from pathlib import Path
from typing import Literal

from pydantic import Field

from bcd.config.schema.base import Strict
from bcd.runs.jsonfile import dump, read_as
from bcd.runs.record import DataFacts, ExportFacts, Standstill

Verdict = Literal["better", "worse"] | None
TEACHER = "teacher"  # the row of a block that stands above its methods


class Comparison(Strict):
    """The difference of a row to the table's baseline in one metric, and what Holm's correction says of it."""

    values: list[float | None]
    """Paired differences in the order of the seeds that row and baseline share."""
    mean: float | None
    """Mean of `values`."""
    low: float | None
    """Lower end of the 95 % interval."""
    high: float | None
    """Upper end of the 95 % interval."""
    p: float | None
    """Two-sided p-value, before the correction."""
    significant: bool
    """Whether it is one after the correction over its family: the table, or a form's differences to the same thing."""
    better: bool
    """Whether the mean lies on the metric's better side."""
    detectable: float | None = None
    """Where it is not significant, the true difference that would have been, with the probability `stats.POWER`; None
    where no difference would, and in a table from before it was computed."""
    seeds_needed: int | None = None
    """Where it is not significant, about how many seeds would mark its mean with that probability; None with one seed,
    where no `stats.MOST_SEEDS` would, and in a table from before it was computed."""

    @property
    def verdict(self) -> Verdict:
        """Where it is significant, which side it is on."""
        if not self.significant:
            return None
        return "better" if self.better else "worse"


class Cell(Strict):
    """A row in one metric."""

    values: list[float | None]
    """In the order of the row's runs; percent, but for `frag`."""
    mean: float | None
    """Mean of `values`."""
    std: float | None
    """Sample standard deviation (ddof 1); None for one run."""
    difference: Comparison | None
    """To the table's baseline in the same form; None where nothing is compared."""
    to_pytorch: Comparison | None = Field(default=None, exclude_if=not_)
    """Of an exported student, to the same runs in PyTorch; left out elsewhere."""

    @property
    def verdict(self) -> Verdict:
        """Where the difference to the baseline is significant, which side it is on."""
        return self.difference.verdict if self.difference else None


class Trace(Strict):
    """Where the numbers of one run come from; paths are relative to the results folder."""

    key: str
    """The run's key."""
    seed: int
    """The seed that it was trained with."""
    file: str
    """Its small JSON."""
    store: str
    """Its folder in the store."""
    record: str
    """Its record, with everything about the training."""
    rows: str
    """Its evaluation, image by image."""
    rows_sha256: str
    """Hash of that file."""
    evaluation: str
    """Hash of how it was evaluated."""
    stale: bool
    """Whether the code that trained or evaluated it has changed since."""
    standing: dict[str, Standstill] = Field(default={}, exclude_if=not_)
    """Its losses that stood still for half of the training or more; left out if there are none."""

    @property
    def repetition(self) -> str:
        """`s0`, the end of its key."""
        return self.key.rpartition("/")[2]


class PublishedCell(Strict):
    """A number of others that stands beside a cell, and the line of `params/published/` that it is from."""

    value: float
    """In percent."""
    undistilled: float | None
    """The same student without distillation, according to the same source."""
    source: int
    """Number of its `Source`."""
    file: str
    """The file in params/published/."""
    line: int
    """The line in that file; 1 is the header."""
    columns: dict[str, str]
    """The whole line as it stands there."""


class FileCost(Strict):
    """What the exported files of a row cost."""

    bytes: float
    """Mean over its runs."""
    time: float | None
    """Of one image, as a ratio to PyTorch eager in the same process; the median over its runs. None where no run has
    one."""


class MeasuredRow(Strict):
    """A method of a pair, or its teacher. What it is measured from is a `bcd.runs.expand.Row`."""

    method: str
    """The method, or `teacher`."""
    runs: list[Trace]
    """The runs that it has."""
    cells: dict[str, Cell]
    """By metric."""
    published: dict[str, PublishedCell]
    """By metric, where there is one."""
    file: FileCost | None = Field(default=None, exclude_if=not_)
    """Of exported students; left out elsewhere."""


class ModelFacts(Strict):
    """What the caption says of a model; all but the name is None where no run of it is there."""

    name: str
    """Its name in params/models.yaml."""
    parameters: int | None
    """Number of parameters."""
    macs: int | None
    """Multiply-accumulate operations for one image."""
    macs_input: list[int] | None
    """Height and width of that image."""
    pretrained: str | None
    """Where its weights come from, or `none`."""


class PairBlock(Strict):
    """A pair of teacher and student: its facts and its rows."""

    dataset: str
    """The student's dataset."""
    teacher_dataset: str
    """The teacher's dataset, usually the same."""
    split: str | None
    """The split of evaluation; None where no student is there, as for `images` and `data`."""
    images: int | None
    """Number of images of that split."""
    data: DataFacts | None
    """Where the data comes from."""
    teacher: ModelFacts
    """The teacher's model."""
    student: ModelFacts
    """The student's model."""
    export: str | None = Field(default=None, exclude_if=not_)
    """The form in which its students run, of params/exports.yaml; left out for PyTorch."""
    exported: ExportFacts | None = Field(default=None, exclude_if=not_)
    """The file of its first exported student; left out for PyTorch, and where none is there."""
    rows: list[MeasuredRow]
    """The teacher's, then those of the methods."""

    def row(self, method: str) -> MeasuredRow:
        """The row of one method, or of the teacher."""
        return next(row for row in self.rows if row.method == method)


class Reference(Strict):
    """Where a number of others was read."""

    title: str
    """What the source is called."""
    url: str
    """Its address."""
    detail: str
    """Which model, input and schedule the number is about."""


class Source(Reference):
    """A numbered reference, and the doubts about what it says."""

    number: int
    """Its number in the table."""
    doubts: list[Reference]
    """Reports of other results of the same experiment."""


class PartialFacts(Strict):
    """What a partial table lacks."""

    runs: int
    """How many runs the whole table has."""
    missing: dict[str, list[str]]
    """By reason, the keys of runs that are left out."""

    @property
    def count(self) -> int:
        """How many runs are left out."""
        return sum(map(len, self.missing.values()))


class TableContent(Strict):
    """Everything that a table says."""

    suite: str
    """The suite's name."""
    table: str
    """The table's name."""
    caption: str = ""
    """What a reader must know before believing it."""
    notes: list[str] = []
    """What is doubtful about it."""
    made_of: str = ""
    """Hash of what was asked and of the runs (`bcd.report.request`); empty in a partial table."""
    seeds: int
    """Runs that each row but the teacher's has in a whole table."""
    baseline: str
    """The method that others are compared with."""
    metrics: list[str]
    """Columns."""
    main_metrics: list[str]
    """The metrics whose differences are tested."""
    comparisons: int
    """Size of the family that Holm's correction is over: the differences to the baseline, of one form each."""
    comparisons_to_pytorch: int = Field(default=0, exclude_if=not_)
    """The same of the differences to PyTorch; left out without exports."""
    sources: list[Source]
    """Of published numbers."""
    pairs: list[PairBlock]
    """Blocks of rows."""
    partial: PartialFacts | None = Field(default=None, exclude_if=lambda facts: facts is None)
    """None in a whole table, whose file does not mention it."""

    @property
    def exported(self) -> bool:
        """Whether it shows students in other forms than PyTorch's."""
        return any(pair.export for pair in self.pairs)

    def expected_runs(self, row: MeasuredRow) -> int:
        """How many runs a row of the whole table has."""
        return 1 if row.method == TEACHER else self.seeds

    def to_json(self) -> str:
        """The text of the table's `.json` file; equal contents give equal bytes."""
        return dump(self)

    @classmethod
    def from_json(cls, path: Path, remedy: str) -> TableContent:
        """What `to_json` has written to `path`.

        Raises UserError if it is missing, damaged or of another shape; `remedy` is a command that writes it again.
        """
        return read_as(cls, path, f"run {remedy} to build it again")
