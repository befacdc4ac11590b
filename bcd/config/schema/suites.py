"""Suites: tables, and the runs that they need; and all params together."""

from __future__ import annotations

from dataclasses import dataclass
from operator import not_
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import (
    Field,
    model_validator,
)

from bcd.config.entries import Entries
from bcd.config.ranges import Whole
from bcd.config.schema.base import METRICS, Name, Strict, TaskName, repeated
from bcd.config.schema.data import Dataset
from bcd.config.schema.exports import Export
from bcd.config.schema.methods import Method
from bcd.config.schema.models import AnyModel
from bcd.config.schema.recipes import AnyRecipe
from bcd.errors import nearest

# Keys of a suite that each of its tables inherits.
SHARED = ("task", "seeds", "metrics", "main_metrics", "panels")


class Pair(Strict):
    """A teacher and its student on a dataset."""

    dataset: str
    """The student's dataset."""
    teacher: str
    """The teacher's model."""
    teacher_recipe: str
    """How the teacher is trained."""
    teacher_dataset: str | None = None
    """The teacher's dataset; null for the student's."""
    student: str
    """The student's model."""
    recipe: str
    """How the student is trained."""


class Variant(Strict):
    """A row of a table that is a changed method."""

    name: Name
    """What the row is called."""
    base: str
    """The method that is changed."""
    set: dict[str, Any] = {}
    """`<term>.<field>` -> value, such as `cwd.weight: 10.0`; the second of two equal terms is `cwd/1`."""
    add: list[dict[str, Any]] = []
    """Terms that are added, written as in params/methods.yaml."""
    terms: list[dict[str, Any]] | None = None
    """All terms, in place of the method's; null leaves these."""


class Panels(Strict):
    """Columns and rows of a table's picture; evaluation keeps the predictions of eight images."""

    methods: list[str] | None = None
    """Rows of the table that are shown; null for none and bcd, as far as the table has them."""
    images: Annotated[int, Field(ge=1, le=8)] = 4
    """How many images."""


class Published(Strict):
    """A number of others for one cell of a table: the one line of `params/published/<csv>` with the columns `where`.

    The line's metric is that of the entry (`bcd.report.published.METRICS`), so `where` leaves it out.
    """

    method: str
    """A row of the table, or `teacher`."""
    pair: Whole | str | None = None
    """The pair's index or its student; null in a table of one pair."""
    metric: str
    """A metric of the table's task."""
    csv: str
    """File in params/published/."""
    where: dict[str, str]
    """Column -> value of the line."""
    note: str = ""
    """What else a reader must know, such as another teacher."""


class Table(Strict):
    """One table. What stands at the top of a suite's file (`SHARED`) holds for each of its tables that does not say."""

    name: Name
    """The table's name, which its files have."""
    caption: str
    """What it shows, in a sentence."""
    task: TaskName
    """The task of all its runs."""
    seeds: Annotated[int, Field(ge=1, le=1000)]
    """Repetitions of each student."""
    pairs: Annotated[list[Pair], Len(1)]
    """Blocks of rows."""
    methods: Annotated[list[str | Variant], Len(1)]
    """Rows of each block, `none` among them."""
    exports: list[str] = Field(default=[], exclude_if=not_)
    """Forms in which each student is shown beside PyTorch's, of params/exports.yaml."""
    baseline: str = "none"
    """The row which every other is compared with."""
    metrics: Annotated[list[str], Len(1)]
    """Columns."""
    main_metrics: Annotated[list[str], Len(1)]
    """The metrics whose differences are tested."""
    published: list[Published] = []
    """Numbers of others beside the table's own."""
    panels: Panels = Panels()
    """The table's picture."""

    @property
    def method_names(self) -> list[str]:
        """The rows of a block without the teacher's."""
        return [entry if isinstance(entry, str) else entry.name for entry in self.methods]

    @model_validator(mode="after")
    def _metrics_fit(self) -> Table:
        known = METRICS[self.task]
        for field in ("metrics", "main_metrics"):
            if twice := repeated(getattr(self, field)):
                raise ValueError(f"{field}: '{twice}' stands twice; remove one")
        if twice := repeated(self.exports):
            raise ValueError(f"exports: '{twice}' stands twice; remove one")
        if any(pair in self.pairs[:i] for i, pair in enumerate(self.pairs)):
            raise ValueError("pairs: one pair stands twice; remove one")
        for metric in (*self.metrics, *self.main_metrics):
            if metric not in known:
                raise ValueError(f"'{metric}' is no metric of the task '{self.task}'; it has {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _rows_fit(self) -> Table:
        names = self.method_names
        if "teacher" in names:
            raise ValueError("a method cannot be called 'teacher', as the teacher's row is; give it another name")
        if twice := repeated(names):
            raise ValueError(f"the method '{twice}' stands twice; remove one or give a changed one another name")
        for needed in ("none", self.baseline):
            if needed not in names:
                raise ValueError(f"a table needs the method '{needed}', which its other rows are compared with")
        for shown in self.panels.methods or []:
            if shown not in names:
                raise ValueError(
                    f"panels.methods: '{shown}' is no method of table '{self.name}'{nearest(shown, names)}"
                )
        return self

    @property
    def panel_methods(self) -> list[str]:
        """The rows that the table's picture shows."""
        chosen = ["none", "bcd"] if self.panels.methods is None else self.panels.methods
        return [name for name in chosen if name in self.method_names]


class Suite(Strict):
    """Tables to build, each with the runs that it needs."""

    description: str
    """What the suite asks, for captions and MLflow."""
    first_seed: Annotated[int, Field(ge=0, le=10**6)] = 0
    """The first repetition; a suite that chooses weights must not train with the seeds that others report."""
    split: Literal["train", "val", "test"] = "test"
    """The split of evaluation."""
    of: list[str] = Field(default=[], exclude_if=not_)
    """Suites whose tables are taken over, with everything that these say but for `first_seed` and `split`."""
    set: dict[str, Any] = Field(default={}, exclude_if=not_)
    """`<part>.<name>.<field>` -> value, such as `recipes.*.steps`: replaced for this suite only."""
    tables: list[Table] = []
    """The tables."""
    name: Name = ""
    """The file's name."""

    @model_validator(mode="after")
    def _has_tables(self) -> Suite:
        if not self.tables and not self.of:
            raise ValueError("a suite needs tables of its own, or other suites to take them from (`of`)")
        return self


@dataclass(frozen=True)
class Params:
    """Everything in `params/` but the suites, keyed by name."""

    datasets: Entries[Dataset]
    """params/datasets.yaml."""
    models: Entries[AnyModel]
    """params/models.yaml."""
    methods: Entries[Method]
    """params/methods.yaml."""
    recipes: Entries[AnyRecipe]
    """params/recipes.yaml."""
    exports: Entries[Export]
    """params/exports.yaml."""
