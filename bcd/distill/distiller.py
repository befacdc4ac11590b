"""Distillation in a training loop of one's own: a student, its frozen teacher and a method, one call a step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bcd.config.schema.methods import WeightedTerm
from bcd.distill.taps import Taps, observe, require_learning
from bcd.distill.terms import WeightedTerms
from bcd.errors import UserError


class Distiller(nn.Module):
    """The losses by which a teacher teaches a student, for a loop that already trains the student.

    A call runs the teacher on the step's input and compares what both models left at their taps. So the student runs
    first, as it does for its own loss. Neither model is part of this module: `parameters()` and `state_dict()` are of
    what is trained beside the student, if anything is. It is trained as the student is: give it to the optimiser, and
    to DistributedDataParallel in one module with the student.

    The teacher is frozen here. It stays in evaluation mode, whoever calls `.train()`, and moves with this module.

    Args:
        student, teacher: modules that take one argument. Their features may differ in channels and in size.
        terms: the method; those that are published come from `bcd.distill.load_method`.
        taps: tap name, such as `stage4` or `logits`, -> path of a module, see `Taps`; those that `terms` name.
        example: an argument of both models, which each takes once in evaluation mode, for the shapes at its taps.
        teacher_taps: as `taps`, where modules of the teacher have other names.
        classes: number of classes, for a term that remembers something per class.

    Raises:
        UserError: a term, option, tap or module that does not exist, or `classes` is missing.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from bcd.distill import Distiller, load_method
        >>> student, teacher = (nn.Sequential(nn.Conv2d(3, c, 1), nn.Conv2d(c, 19, 1)) for c in (4, 8))
        >>> image = torch.randn(2, 3, 8, 8)
        >>> distiller = Distiller(student, teacher, load_method("cwd").terms, {"logits": "1"}, example=image)
        >>> output = student(image)
        >>> losses = distiller(image)
        >>> list(losses), losses["cwd"].requires_grad, len(list(distiller.parameters()))
        (['cwd'], True, 0)
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        terms: Sequence[WeightedTerm],
        taps: Mapping[str, str],
        *,
        example: Any,
        teacher_taps: Mapping[str, str] | None = None,
        classes: int | None = None,
    ):
        super().__init__()
        of_teacher = taps if teacher_taps is None else teacher_taps
        shapes = (
            observe(student, taps, lambda: student(example)),
            observe(teacher, of_teacher, lambda: teacher(example)),
        )
        self.terms = WeightedTerms(terms, *shapes, classes=classes).to(next(student.parameters()).device)
        needed = self.terms.taps
        self._seen = Taps(student, {tap: taps[tap] for tap in needed})
        self._taught = Taps(teacher, {tap: of_teacher[tap] for tap in needed})
        # In a tuple, torch does not take it for a part of this module.
        self._frozen = (teacher.requires_grad_(False).eval(),)

    def forward(
        self,
        inputs: Any,
        *,
        step: int | None = None,
        total: int | None = None,
        valid: Tensor | None = None,
        label: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted loss of each term by its name, `<term>/<i>` where one occurs more than once; add them up.

        Args:
            inputs: what the student was called with in this step; the teacher is now.
            step, total: position in the schedule, 0 <= step < total; only terms with a schedule or a warmup need it.
            valid: bool (N, H, W), True = the pixel may contribute, at any resolution; None = all pixels.
            label: int64 (N, H, W), 255 = ignore, at any resolution; for terms that read labels.
            boxes: N tensors (k, 4) of x1, y1, x2, y2 as fractions of the image; for terms that read boxes.

        Raises:
            UserError: the student did not run since the last call, a tap of it is frozen, or `step` is missing.
        """
        student = self._seen.read()
        if torch.is_grad_enabled():
            require_learning(student)
        (teacher,) = self._frozen
        if teacher.training:  # it is part of a module that somebody set to training
            teacher.eval()
        with torch.no_grad():
            teacher(inputs)
        if step is None or total is None:
            step, total = self._no_step()
        maps = (_whole(student), _whole(self._taught.read()))
        return self.terms(*maps, step=step, total=total, valid=valid, label=label, boxes=boxes)

    def remove(self) -> None:
        """Take the hooks off both models; the teacher stays frozen."""
        self._seen.remove()
        self._taught.remove()

    def _no_step(self) -> tuple[int, int]:
        """Any step, as the weights are the same at each."""
        if moving := [entry.term for entry in self.terms.terms if entry.schedule != "constant" or entry.warmup]:
            raise UserError(
                f"the weight of the term {moving[0]!r} has a schedule; call the distiller with step and total"
            )
        return 0, 1

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Distiller":
        """What `.to` and its like do to every tensor, here and in the teacher."""
        self._frozen[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)


def _whole(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Maps that autocast made in half precision in float32, which fits what is trained beside the student."""
    half = (torch.float16, torch.bfloat16)
    return {tap: x.float() if x.dtype in half else x for tap, x in maps.items()}
