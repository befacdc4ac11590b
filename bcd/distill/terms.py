"""The weighted sum of terms that pulls a student towards its teacher."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from bcd.config.schema.methods import WeightedTerm
from bcd.config.terms import check_options, term_names
from bcd.distill.facts import Facts
from bcd.distill.taps import Shape, Shapes
from bcd.errors import UserError
from bcd.losses import TERMS, Term

SCHEDULES = ("constant", "linear", "warmup")


def schedule(kind: str, step: int, total: int, warmup: int = 0) -> float:
    """The factor in [0, 1] of a term's weight at `step` in 0..total.

    `constant` is 1 and `linear` is 1 - step / total, either multiplied by min(1, (step + 1) / warmup). `warmup` is
    `constant` with a rise that may not be missing. The factor is positive at every step < total. So no learned
    projector is ever without a gradient, which DistributedDataParallel does not forgive.

    Raises:
        UserError: an unknown kind, or `warmup` without steps.
    """
    if kind not in SCHEDULES:
        raise UserError(f"schedule must be one of {', '.join(SCHEDULES)}, not {kind!r}")
    if kind == "warmup" and warmup < 1:
        raise UserError("schedule warmup needs warmup: the number of steps over which the weight rises")
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return rise * (max(0.0, 1.0 - step / total) if kind == "linear" else 1.0)


class WeightedTerms(nn.Module):
    """The terms of one method between one student and one teacher.

    It holds what is trained beside the student, which are projectors and losses with state. It holds neither model.
    So its `state_dict` resumes a run and is never part of the student's weights. Construction draws initial weights
    from torch's global generator. `taps` names every tap it needs, `keys` the losses it returns.

    Args:
        terms: the method, in order; an entry of weight 0 is left out.
        student_shapes, teacher_shapes: tap name -> (N, C, H, W), from `observe`.
        classes: number of classes, for losses that remember something per class; None where there is none.

    Raises:
        UserError: a term, option or tap that does not exist, a value that an option may not have, or `classes` is
            missing.

    Example:
        >>> import torch
        >>> from bcd.config.schema.methods import WeightedTerm
        >>> from bcd.distill.terms import WeightedTerms
        >>> shapes = {"logits": (2, 19, 64, 64)}
        >>> terms = [WeightedTerm(term="kd", weight=0.5, options={"temperature": 4.0}), WeightedTerm(term="cwd")]
        >>> weighted = WeightedTerms(terms, shapes, shapes)
        >>> student, teacher = {"logits": torch.zeros(2, 19, 64, 64)}, {"logits": torch.ones(2, 19, 64, 64)}
        >>> losses = weighted(student, teacher, step=0, total=100)
        >>> {key: loss.item() for key, loss in losses.items()}
        {'kd': 0.0, 'cwd': 0.0}
    """

    def __init__(
        self,
        terms: Sequence[WeightedTerm],
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        classes: int | None = None,
    ):
        super().__init__()
        self.terms = tuple(entry for entry in terms if entry.weight > 0)
        self.keys = _keys([entry.term for entry in self.terms])
        wired = [_term(entry, key, classes) for entry, key in zip(self.terms, self.keys, strict=True)]
        taps = [tuple(entry.taps) or term.taps for entry, term in zip(self.terms, wired, strict=True)]
        self.taps = tuple(dict.fromkeys(tap for some in taps for tap in some))
        self._calls = [_calls(term, some) for term, some in zip(wired, taps, strict=True)]
        self.losses = nn.ModuleList(
            nn.ModuleList(
                _Loss(
                    term,
                    entry.options | ({"classes": classes} if term.reads_classes else {}),
                    [_shape(entry.term, tap, "student", student_shapes) for tap in some],
                    [_shape(entry.term, tap, "teacher", teacher_shapes) for tap in some],
                )
                for some in calls
            )
            for entry, term, calls in zip(self.terms, wired, self._calls, strict=True)
        )

    def forward(
        self,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        *,
        step: int,
        total: int,
        valid: Tensor | None = None,
        label: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
        region_label: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The weighted loss of every entry, keyed `<term>`, or `<term>/<i>` where a term occurs more than once.

        Args:
            student, teacher: tap name -> (N, C, H, W); teacher maps are resized to the student's size (bilinear). Or
                (R, C), class scores of R regions: a term sees R images of one pixel, all valid.
            step, total: position in the schedule, 0 <= step < total.
            valid: bool (N, H, W) at any resolution; brought to each tap's by `resize_nearest`. None = all pixels.
            label: int64 (N, H, W) or None; likewise.
            boxes: N tensors (k, 4) of corners as fractions of the image, or None.
            region_label: int64 (R,), the class of each region, or None.
        """
        facts = Facts({tap: _as_map(x) for tap, x in teacher.items()}, valid, label, boxes, region_label)
        student = {tap: _as_map(x) for tap, x in student.items()}
        result, factors = {}, self.factors(step, total)
        for key, entry, calls, losses in zip(self.keys, self.terms, self._calls, self.losses, strict=True):
            weight = entry.weight * factors[key]
            seen = facts.with_label_as_teacher() if entry.target == "label" else facts
            pairs = zip(calls, cast(nn.ModuleList, losses), strict=True)
            result[key] = weight * torch.stack([loss(student, taps, seen) for taps, loss in pairs]).mean()
        return result

    def factors(self, step: int, total: int) -> dict[str, float]:
        """What the schedule of each entry multiplies its weight by, see `schedule`; keyed as the losses are."""
        return {
            key: schedule(entry.schedule, step, total, entry.warmup)
            for key, entry in zip(self.keys, self.terms, strict=True)
        }


class _Loss(nn.Module):
    """One call of a term: the projectors, where it asks for them, and the loss with its options."""

    loss: Callable[..., Tensor]

    def __init__(self, term: Term, options: Mapping[str, object], students: Sequence[Shape], teachers: Sequence[Shape]):
        super().__init__()
        pairs = list(zip(students, teachers, strict=True))
        self.project = nn.ModuleList(projector(*pair) if term.match_channels else nn.Identity() for pair in pairs)
        self.term = term
        if isinstance(term.loss, type):
            projected = [[s[0], t[1], *s[2:]] if term.match_channels else s for s, t in pairs]
            shapes = (projected, teachers) if term.joint else (projected[0], teachers[0])
            self.loss = term.loss(*shapes, **options)
        else:
            self.loss = partial(term.loss, **options)

    def forward(self, student: Mapping[str, Tensor], taps: Sequence[str], facts: Facts) -> Tensor:
        maps = [project(student[tap]) for tap, project in zip(taps, self.project, strict=True)]
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        teacher = [facts.teacher_at(tap, size) for tap, size in zip(taps, sizes, strict=True)]
        masks = [facts.masks_at(tap, size) for tap, size in zip(taps, sizes, strict=True)]
        known: dict[str, object] = {"image_label": facts.label, "boxes": facts.boxes}
        if self.term.joint:
            known |= {name: [mask[name] for mask in masks] for name in masks[0]}
            return self.loss(maps, teacher, **{name: known[name] for name in self.term.facts})
        known |= masks[0]
        return self.loss(maps[0], teacher[0], **{name: known[name] for name in self.term.facts})


def projector(student_shape: Shape, teacher_shape: Shape) -> nn.Module:
    """A 1x1 convolution without bias from the student's channels to the teacher's; identity where they agree.

    Args:
        student_shape, teacher_shape: observed (N, C, H, W) of one tap. H and W may differ: the distiller resizes.
    """
    student_channels, teacher_channels = student_shape[1], teacher_shape[1]
    if student_channels == teacher_channels:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=False)


def _keys(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}/{names[:i].count(name)}" for i, name in enumerate(names)]


def _calls(term: Term, taps: Sequence[str]) -> list[Sequence[str]]:
    """The taps of each call of a term's loss: all at once for a joint loss, else one by one."""
    return [taps] if term.joint else [[tap] for tap in taps]


def _as_map(features: Tensor) -> Tensor:
    """Vectors (R, C) as maps (R, C, 1, 1); maps as they are."""
    return features[..., None, None] if features.dim() == 2 else features


def _term(entry: WeightedTerm, key: str, classes: int | None) -> Term:
    if entry.term not in TERMS:
        raise UserError(f"unknown term {entry.term!r}; choose from {', '.join(TERMS)}")
    if entry.term in term_names():  # a term that a program has added to TERMS has no source to read types from
        check_options(entry.term, entry.options, key)
    term = TERMS[entry.term]
    if entry.target == "label" and tuple(entry.taps or term.taps) != ("logits",):
        raise UserError(f"term {entry.term!r}: target: label needs taps: [logits]; labels have no features")
    if term.reads_classes and classes is None:
        raise UserError(f"term {entry.term!r} remembers something per class; say the number of classes")
    return term


def _shape(term: str, tap: str, owner: str, shapes: Shapes) -> Shape:
    if tap not in shapes:
        raise UserError(f"term {term!r} asks for tap {tap!r}, but the {owner} offers {', '.join(shapes)}")
    shape = tuple(shapes[tap])
    if len(shape) not in (2, 4):
        raise UserError(
            f"term {term!r}: tap {tap!r} of the {owner} has shape {shape}; tap a map (N, C, H, W) or vectors (R, C)"
        )
    return shape if len(shape) == 4 else (*shape, 1, 1)
