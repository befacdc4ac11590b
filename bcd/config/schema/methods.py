"""Methods: weighted terms."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    NonNegativeFloat,
    model_validator,
)

from bcd.config.ranges import Whole
from bcd.config.schema.base import Strict, repeated

TAPS = ("stage1", "stage2", "stage3", "stage4", "p2", "p3", "p4", "p5", "p6", "p7", "neck", "logits")


class WeightedTerm(Strict):
    """One term of a method; in YAML, keys that are not listed here are options of its loss."""

    term: str
    """A key of `bcd.losses.TERMS`."""
    taps: list[Literal[TAPS]] = []  # type: ignore[valid-type]
    """Where it compares student and teacher; empty for the term's default taps."""
    weight: NonNegativeFloat = 1.0
    """Factor of the loss, which is the mean over the taps unless it is a joint one."""
    schedule: Literal["constant", "linear", "warmup"] = "constant"
    """How the weight changes over training; linear falls to 0."""
    warmup: Whole = 0
    """Steps over which the weight rises, under any schedule."""
    target: Literal["teacher", "label"] = "teacher"
    """`label` is a control: labels in the teacher's place."""
    options: dict[str, Any] = {}
    """Keyword arguments of the loss, checked against its signature (`bcd.config.terms`)."""

    @model_validator(mode="after")
    def _fits(self) -> WeightedTerm:
        if twice := repeated(self.taps):
            raise ValueError(f"taps: '{twice}' stands twice; remove one")
        if self.schedule == "warmup" and self.warmup < 1:
            raise ValueError("schedule warmup needs warmup: the number of steps over which the weight rises")
        if self.target == "label" and self.taps not in ([], ["logits"]):
            raise ValueError("target: label needs taps: [logits]; labels have no features")
        return self


class Method(Strict):
    """Terms that are added to the student's task loss."""

    description: str
    """What it is and where its constants come from."""
    terms: list[WeightedTerm]
    """The terms in order."""
