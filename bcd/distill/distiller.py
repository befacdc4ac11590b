"""The weighted sum of terms that pulls a student towards its teacher."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcd.distill.projectors import projector
from bcd.distill.taps import Taps
from bcd.errors import UserError
from bcd.label import IGNORE
from bcd.losses import TERMS, Term

Shapes = Mapping[str, Sequence[int]]
LABEL_LOGIT = 10.0  # a posterior of 0.9996 among eight classes
SCHEDULES = ("constant", "linear", "warmup")


@dataclass(frozen=True)
class WeightedTerm:
    """One entry of a method. Any object with these attributes will do.

    term      a key of TERMS
    taps      tap names; empty = the term's default taps. The loss is averaged over them, unless it is a joint one
    weight    >= 0
    schedule  how the weight changes, one of SCHEDULES
    warmup    steps during which the weight rises linearly, under any schedule
    options   keyword arguments of the loss
    target    `teacher`, or `label`: the control that puts `label_logits` in the teacher's place, for taps of logits
    """

    term: str
    taps: Sequence[str] = ()
    weight: float = 1.0
    schedule: str = "constant"
    warmup: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    target: str = "teacher"


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
        classes: number of classes, for losses that remember something per class.

    Raises:
        UserError: a term, option, schedule or tap that does not exist.
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
        self._taps = [tuple(entry.taps) or _term(entry).taps for entry in self.terms]
        self.taps = tuple(dict.fromkeys(tap for taps in self._taps for tap in taps))
        self.losses = nn.ModuleList(
            nn.ModuleList(
                _Loss(
                    _term(entry),
                    entry.options | ({"classes": classes} if _term(entry).reads_classes else {}),
                    [_shape(entry.term, tap, "student", student_shapes) for tap in taps],
                    [_shape(entry.term, tap, "teacher", teacher_shapes) for tap in taps],
                )
                for taps in _calls(entry, all_taps)
            )
            for entry, all_taps in zip(self.terms, self._taps, strict=True)
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
        facts = _Facts({tap: _as_map(x) for tap, x in teacher.items()}, valid, label, boxes, region_label)
        student = {tap: _as_map(x) for tap, x in student.items()}
        result = {}
        for key, entry, taps, losses in zip(self.keys, self.terms, self._taps, self.losses, strict=True):
            weight = entry.weight * schedule(entry.schedule, step, total, entry.warmup)
            seen = facts.with_label_as_teacher() if entry.target == "label" else facts
            each = [loss(student, names, seen) for names, loss in zip(_calls(entry, taps), losses, strict=True)]
            result[key] = weight * torch.stack(each).mean()
        return result


def _calls(entry: WeightedTerm, taps: Sequence[str]) -> list[Sequence[str]]:
    """The taps of each call of an entry's loss: all at once for a joint loss, else one by one."""
    return [taps] if _term(entry).joint else [[tap] for tap in taps]


class _Loss(nn.Module):
    """One call of a term: the projectors, where it asks for them, and the loss with its options."""

    def __init__(self, term: Term, options: Mapping[str, Any], students: list, teachers: list):
        super().__init__()
        pairs = list(zip(students, teachers, strict=True))
        self.project = nn.ModuleList(projector(*pair) if term.match_channels else nn.Identity() for pair in pairs)
        self.term = term
        if inspect.isclass(term.loss):
            projected = [[s[0], t[1], *s[2:]] if term.match_channels else s for s, t in pairs]
            shapes = (projected, teachers) if term.joint else (projected[0], teachers[0])
            self.loss = term.loss(*shapes, **options)
        else:
            self.loss = partial(term.loss, **options)

    def forward(self, student: Mapping[str, Tensor], taps: Sequence[str], facts: "_Facts") -> Tensor:
        maps = [project(student[tap]) for tap, project in zip(taps, self.project, strict=True)]
        found = [facts(tap, _size(one)) for tap, one in zip(taps, maps, strict=True)]
        at_map = {key: [one[key] for one in found] for key in found[0]}
        teacher = at_map.pop("teacher")
        if not self.term.joint:
            maps, teacher, at_map = maps[0], teacher[0], {key: value[0] for key, value in at_map.items()}
        given = at_map | facts.of_image
        return self.loss(maps, teacher, **{name: given[name] for name in self.term.facts})


class _Facts:
    """What a loss may know of a batch. Teacher maps, masks and labels are brought to a map's size once per batch."""

    def __init__(
        self,
        teacher: Mapping[str, Tensor],
        valid: Tensor | None,
        label: Tensor | None,
        boxes: Any,
        region_label: Tensor | None,
    ):
        self.teacher, self.valid, self.label = teacher, valid, label
        self.region_label = None if region_label is None else region_label.view(-1, 1, 1)
        self.of_image = {"image_label": label, "boxes": boxes}
        self.maps: dict[tuple[str, tuple[int, int]], Tensor] = {}
        self.masks: dict[tuple[int, int], dict[str, Tensor | None]] = {}

    def with_label_as_teacher(self) -> "_Facts":
        """The same facts with the labels in the place of the teacher's logits and only labelled pixels valid."""
        classes = self.teacher["logits"].shape[1]
        if self.region_label is not None:
            maps = {"logits": label_logits(self.region_label, classes)}
            return _Facts(maps, None, None, None, self.region_label)
        labelled = self.label != IGNORE
        valid = labelled if self.valid is None else self.valid & labelled
        return _Facts({"logits": label_logits(self.label, classes)}, valid, self.label, self.of_image["boxes"], None)

    def __call__(self, tap: str, size: tuple[int, int]) -> dict[str, Tensor | None]:
        if (tap, size) not in self.maps:
            self.maps[tap, size] = _resize(self.teacher[tap].detach(), size)
        if tap == "logits" and self.region_label is not None:
            return {"teacher": self.maps[tap, size], "valid": None, "label": self.region_label}
        if size not in self.masks:
            images = {"valid": self.valid, "label": self.label}
            self.masks[size] = {k: x if x is None else resize_nearest(x, size) for k, x in images.items()}
        return {"teacher": self.maps[tap, size]} | self.masks[size]


def label_logits(label: Tensor, classes: int) -> Tensor:
    """Logits (N, classes, H, W) of a teacher that is certain of the label: LABEL_LOGIT for its class, 0 for others.

    label: int64 (N, H, W); where it is no class the logits are all 0.
    """
    known = (label >= 0) & (label < classes)
    one_hot = F.one_hot(label.where(known, 0), classes) * known.unsqueeze(-1)
    return LABEL_LOGIT * one_hot.movedim(-1, 1).float()


def _as_map(features: Tensor) -> Tensor:
    """Vectors (R, C) as maps (R, C, 1, 1); maps as they are."""
    return features[..., None, None] if features.dim() == 2 else features


def _size(features: Tensor) -> tuple[int, int]:
    return features.shape[2], features.shape[3]


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


def observe(model: nn.Module, paths: Mapping[str, str], run: Callable[[], Any]) -> dict[str, torch.Size]:
    """Shapes of the tensors at `paths` (see `Taps`), from one forward pass, `run()`, that leaves no trace.

    Runs in eval mode without gradients; every module's mode, BatchNorm statistics and the random state stay as found.
    """
    modes = {module: module.training for module in model.modules()}
    devices = {p.device for p in model.parameters() if p.is_cuda}
    try:
        with Taps(model, paths) as taps, torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            model.eval()
            run()
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
    if entry.target == "label" and tuple(entry.taps or term.taps) != ("logits",):
        raise UserError(f"term {entry.term!r}: target: label needs taps: [logits]; labels have no features")
    return term


def _shape(term: str, tap: str, owner: str, shapes: Shapes) -> Sequence[int]:
    if tap not in shapes:
        raise UserError(f"term {term!r} asks for tap {tap!r}, but the {owner} offers {', '.join(shapes)}")
    shape = tuple(shapes[tap])
    if len(shape) not in (2, 4):
        raise UserError(
            f"term {term!r}: tap {tap!r} of the {owner} has shape {shape}; tap a map (N, C, H, W) or vectors (R, C)"
        )
    return shape if len(shape) == 4 else (*shape, 1, 1)
