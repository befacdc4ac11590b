"""Distillation losses and `TERMS`, the only registry of the project.

Every loss is a pure function

    loss(student, teacher, *, valid=None, label=None, **options) -> scalar tensor

    student, teacher  float (N, C, H, W), equal N, H and W; channel counts may differ where the loss says so
    valid             bool (N, H, W), True = the pixel may contribute; None = all
    label             int64 (N, H, W), 255 = ignore; only losses that need labels read it

and keeps this contract: zero when student and teacher agree; no gradient to the teacher; an invalid pixel changes
neither the value nor the gradient, whatever stands in it; no valid pixel gives 0 with zero gradients; half
precision is computed in float32 (float64 stays float64); finite for inputs up to 1e15.

A new method is one short file and one line of `TERMS`. A loss that learns or remembers something is an `nn.Module`
class instead: built as `cls(student_shape, teacher_shape, *, **options)`, called like the functions. Options are the
keyword-only parameters, whose names `bcd.config` checks a method file against.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from bcd.losses.boundary import boundary, posterior_boundary
from bcd.losses.channel import cwd
from bcd.losses.context import context
from bcd.losses.logits import kd


@dataclass(frozen=True)
class Term:
    """A loss and how it is wired by default.

    loss            the function, or the `nn.Module` class of a loss with state
    taps            names of the tapped tensors it compares unless the method names others
    match_channels  project the student to the teacher's channels by a learned 1x1 convolution where they differ
    """

    loss: Callable | type[nn.Module]
    taps: tuple[str, ...]
    match_channels: bool = False

    @property
    def options(self) -> Mapping[str, Any]:
        """Names and defaults of the keyword-only parameters, but for `valid` and `label`."""
        parameters = inspect.signature(self.loss).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("valid", "label")}


STAGES = ("stage1", "stage2", "stage3", "stage4")

TERMS: dict[str, Term] = {
    "kd": Term(kd, taps=("logits",)),
    "cwd": Term(cwd, taps=("logits",), match_channels=True),
    "boundary": Term(boundary, taps=STAGES),
    "posterior_boundary": Term(posterior_boundary, taps=("logits",)),
    "context": Term(context, taps=("stage3", "stage4")),
}
