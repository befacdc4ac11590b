"""What `bcd compare` says, as types; its `--json` is a `RowComparison`, and the other forms render it.

A number that is undefined is None.
"""

from __future__ import annotations

from bcd.config.schema.base import Strict
from bcd.report.content import Trace


class Compared(Strict):
    """One metric in both rows, and the paired difference, the second row minus the first."""

    metric: str
    """The metric."""
    part: str = ""
    """The class that it is of; empty for all."""
    a: float | None
    """Mean over the seeds of the first row."""
    a_std: float | None
    """Sample standard deviation (ddof 1); None for one seed."""
    b: float | None
    """As `a`, of the second row."""
    b_std: float | None
    """As `a_std`, of the second row."""
    values: list[float | None]
    """The difference of each seed, in the order of `repetitions`."""
    mean: float | None
    """Mean of `values`."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Upper end of its 95 % interval."""
    p: float | None
    """Two-sided p-value, without any correction."""


class Moved(Strict):
    """An image by itself: a metric in both rows, mean over the seeds."""

    image: str
    """Its name or path, as the evaluation has it."""
    a: float
    """In the first row."""
    b: float
    """In the second row."""
    difference: float
    """The second minus the first."""
    seeds_up: int
    """Seeds in which it rose."""
    seeds_down: int
    """Seeds in which it fell."""


class ComparedRow(Strict):
    """A row, and where its numbers come from."""

    name: str
    """Its method, with the form of an export and the repetition of a single run."""
    address: str
    """As of `bcd.report.sides.Side`."""
    runs: list[Trace]
    """The runs that are compared."""


class RowComparison(Strict):
    """Everything that `bcd compare` says."""

    suite: str
    """The suite's name."""
    table: str
    """The table's name."""
    a: ComparedRow
    """The first row."""
    b: ComparedRow
    """The second row."""
    dataset: str
    """The dataset of the images."""
    split: str
    """Their split."""
    images: int
    """Their number."""
    repetitions: list[str]
    """`s0`, ...: the seeds that are paired."""
    metrics: list[Compared]
    """All classes and sizes."""
    sizes: list[Compared]
    """Objects of COCO's sizes; empty for segmentation, whose rows do not know them."""
    classes: list[Compared]
    """Class by class, for each of the metrics that have classes."""
    moved_by: str
    """The metric of `up` and `down`."""
    up: list[Moved]
    """The images that gained most, the most first."""
    down: list[Moved]
    """The images that lost most, the most first."""
    caveats: list[str]
    """What a reader must know before believing it."""
