"""The weighted sum of terms that pulls a student towards its teacher."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd.errors import UserError
from bcd.losses import TERMS, Term
from bcd.projectors import projector
from bcd.taps import Taps

Shapes = Mapping[str, Sequence[int]]
SCHEDULES = ("constant", "linear", "warmup")


@dataclass(frozen=True)
class WeightedTerm:
    """One entry of a method. Any object with these attributes will do.

    term      a key of TERMS
    taps      tap names; empty = the term's default taps. The loss is averaged over them
    weight    >= 0
    schedule  how the weight changes, one of SCHEDULES
    warmup    steps during which the weight rises linearly, under any schedule
    options   keyword arguments of the loss
    """

    term: str
    taps: Sequence[str] = ()
    weight: float = 1.0
    schedule: str = "constant"
    warmup: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


def schedule(kind: str, step: int, total: int, warmup: int = 0) -> float:
    """The factor in [0, 1] of a term's weight at `step` in 0..total.

    `constant` is 1 and `linear` is 1 - step / total, either multiplied by min(1, (step + 1) / warmup). `warmup` is
    `constant` with a rise that may not be missing. Positive at every step < total, so that no learned projector is ever
    without a gradient, which DistributedDataParallel does not forgive.

    Raises:
        UserError: an unknown kind, or `warmup` without steps.
    """
    if kind not in SCHEDULES:
        raise UserError(f"schedule must be one of {', '.join(SCHEDULES)}, not {kind!r}")
    if kind == "warmup" and warmup < 1:
        raise UserError("schedule warmup needs warmup: the number of steps over which the weight rises")
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return rise * (max(0.0, 1.0 - step / total) if kind == "linear" else 1.0)


class Distiller(nn.Module):
    """The terms of one method between one student and one teacher.

    Holds what is trained beside the student (projectors, losses with state) and neither model, so that its
    `state_dict` resumes a run and is never part of the student's weights. Construction draws initial weights from
    torch's global generator. `taps` names every tap it needs, `keys` the losses it returns.

    Args:
        terms: the method, in order; an entry of weight 0 is left out.
        student_shapes, teacher_shapes: tap name -> (N, C, H, W), from `observe`.

    Raises:
        UserError: a term, option, schedule or tap that does not exist.
    """

    def __init__(self, terms: Sequence[WeightedTerm], student_shapes: Shapes, teacher_shapes: Shapes):
        super().__init__()
        self.terms = tuple(entry for entry in terms if entry.weight > 0)
        self.keys = _keys([entry.term for entry in self.terms])
        self._taps = [tuple(entry.taps) or _term(entry).taps for entry in self.terms]
        self.taps = tuple(dict.fromkeys(tap for taps in self._taps for tap in taps))
        self.losses = nn.ModuleList(
            nn.ModuleList(
                _TapLoss(
                    _term(entry),
                    entry.options,
                    _shape(entry.term, tap, "student", student_shapes),
                    _shape(entry.term, tap, "teacher", teacher_shapes),
                )
                for tap in taps
            )
            for entry, taps in zip(self.terms, self._taps, strict=True)
        )

    def forward(
        self,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        *,
        valid: Tensor | None,
        label: Tensor | None,
        step: int,
        total: int,
    ) -> dict[str, Tensor]:
        """The weighted loss of every entry, keyed `<term>`, or `<term>/<i>` where a term occurs more than once.

        Args:
            student, teacher: tap name -> (N, C, H, W); teacher maps are resized to the student's size (bilinear).
            valid: bool (N, H, W) at any resolution; brought to each tap's by `resize_nearest`. None = all pixels.
            label: int64 (N, H, W) or None; likewise.
            step, total: position in the schedule, 0 <= step < total.
        """
        at = _Resized(teacher, valid, label)
        result = {}
        for key, entry, taps, losses in zip(self.keys, self.terms, self._taps, self.losses, strict=True):
            weight = entry.weight * schedule(entry.schedule, step, total, entry.warmup)
            each = [loss(student[tap], *at(tap, student[tap])) for tap, loss in zip(taps, losses, strict=True)]
            result[key] = weight * torch.stack(each).mean()
        return result


class _TapLoss(nn.Module):
    """One term on one tap: the projector, where the term asks for one, and the loss."""

    def __init__(self, term: Term, options: Mapping[str, Any], student: Sequence[int], teacher: Sequence[int]):
        super().__init__()
        self.project = projector(student, teacher) if term.match_channels else nn.Identity()
        if inspect.isclass(term.loss):
            projected = [student[0], teacher[1] if term.match_channels else student[1], *student[2:]]
            self.loss = term.loss(projected, teacher, **options)
        else:
            self.loss = partial(term.loss, **options)

    def forward(self, student: Tensor, teacher: Tensor, valid: Tensor | None, label: Tensor | None) -> Tensor:
        return self.loss(self.project(student), teacher, valid=valid, label=label)


class _Resized:
    """Teacher maps, masks and labels at the student's resolution, each made once per batch."""

    def __init__(self, teacher: Mapping[str, Tensor], valid: Tensor | None, label: Tensor | None):
        self.teacher, self.valid, self.label = teacher, valid, label
        self.maps: dict[str, Tensor] = {}
        self.masks: dict[tuple[int, int], tuple[Tensor | None, Tensor | None]] = {}

    def __call__(self, tap: str, student: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        size = (student.shape[2], student.shape[3])
        if tap not in self.maps:
            self.maps[tap] = _resize(self.teacher[tap].detach(), size)
        if size not in self.masks:
            self.masks[size] = tuple(x if x is None else resize_nearest(x, size) for x in (self.valid, self.label))
        return self.maps[tap], *self.masks[size]


def _resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    if features.shape[2:] == size:
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def resize_nearest(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask or label (N, H, W) of any dtype to `size`: a cell takes the pixel under its centre.

    So a cell counts as padding where its centre is padding. Demanding that *all* its pixels be valid would drop nearly
    every coarse cell that touches the void outlines of VOC-style labels, which are the cells boundary terms live on.
    """
    rows, columns = (
        (2 * torch.arange(new, device=image.device) + 1) * old // (2 * new)
        for new, old in zip(size, image.shape[1:], strict=True)
    )
    return image if image.shape[1:] == size else image[:, rows[:, None], columns]


def observe(model: nn.Module, paths: Mapping[str, str], image: Any) -> dict[str, torch.Size]:
    """Shapes of the tensors at `paths` (see `Taps`), from one forward pass of `image` that leaves no trace.

    Runs in eval mode without gradients; every module's mode, BatchNorm statistics and the random state stay as found.
    """
    modes = {module: module.training for module in model.modules()}
    devices = {p.device for p in model.parameters() if p.is_cuda}
    try:
        with Taps(model, paths) as taps, torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            model.eval()(image)
            return {name: tensor.shape for name, tensor in taps.read().items()}
    finally:
        for module, training in modes.items():
            module.training = training


def _keys(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}/{names[:i].count(name)}" for i, name in enumerate(names)]


def _term(entry: WeightedTerm) -> Term:
    if entry.term not in TERMS:
        raise UserError(f"unknown term {entry.term!r}; choose from {', '.join(TERMS)}")
    term = TERMS[entry.term]
    for option in entry.options:
        if option not in term.options:
            raise UserError(f"term {entry.term!r} has no option {option!r}; it takes {', '.join(term.options)}")
    schedule(entry.schedule, 0, 1, entry.warmup)
    return term


def _shape(term: str, tap: str, owner: str, shapes: Shapes) -> Sequence[int]:
    if tap not in shapes:
        raise UserError(f"term {term!r} asks for tap {tap!r}, but the {owner} offers {', '.join(shapes)}")
    if len(shapes[tap]) != 4:
        raise UserError(
            f"term {term!r}: tap {tap!r} of the {owner} has shape {tuple(shapes[tap])}; tap a map (N, C, H, W)"
        )
    return shapes[tap]
