"""One student in training: its objective, optimiser, random state and history.

Learners of a group share batches and teacher outputs and nothing else; each swaps its own random state in before it
draws, so its result does not depend on its company.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bcd import distributed
from bcd.config.schema.recipes import SegmentationRecipe
from bcd.distill.taps import Shapes, Taps, observe, require_learning
from bcd.distill.terms import WeightedTerms
from bcd.errors import UserError, pick
from bcd.models.base import DenseModel
from bcd.models.weights import not_finite, require_whole
from bcd.runs import store
from bcd.runs.progress import STATE, damaged, read_progress
from bcd.runs.record import Failure, Standstill
from bcd.runs.spec import Evaluation, RunSpec
from bcd.tasks.task import Task
from bcd.train.checkpoint import TrainState, first_line, load_state, save_state
from bcd.train.clock import Spent, now
from bcd.train.history import FILE, VALIDATION, add_line, cut_after
from bcd.train.optimizer import learning_rate, make_optimizer
from bcd.train.standstill import Streaks, follow, stands_still


class Objective(nn.Module):
    """Task losses plus distillation losses of one batch; owns the student, never the teacher."""

    def __init__(self, task: Task, student: DenseModel, terms: WeightedTerms | None):
        super().__init__()
        self.student, self.terms = student, terms
        self._task = task
        self._taps = Taps(student, tap_paths(task, student, terms.taps if terms else ()))

    def forward(self, batch: Any, teacher: dict[str, Tensor], step: int, total: int) -> dict[str, Tensor]:
        if self.terms is None:
            return self._task.losses(self.student, batch.labelled_part())
        losses = self._task.losses(self.student, batch)
        student = self._taps.read()
        require_learning(student)
        return losses | self.terms(student, teacher, step=step, total=total, **batch.facts())


class Learner:
    """Trains the student of one spec. `failed` holds the reason once it cannot go on.

    `anew` says why it does not go on from the train state that there is, if so.

    Args:
        spec: what is trained.
        folder: its place in the store, locked by the caller.
        task: the task of all learners of the group.
        teacher_shapes: tap name -> (N, C, H, W) of the teacher; empty where nothing is distilled.
        device: where it trains.
    """

    def __init__(self, spec: RunSpec, folder: Path, task: Task, teacher_shapes: Shapes, device: torch.device):
        self.spec, self.folder, self.device = spec, folder, device
        self.training, self.recipe = spec.training, spec.training.recipe
        self.step, self.spent, self.resumes = 0, Spent(), 0
        self.failed: str | None = None
        torch.manual_seed(self.training.seed)
        self.student: DenseModel = task.build(self.training.model).to(device)
        if not self.recipe.steps:
            require_whole(self.student.weights, self.training.model.pretrained)
        self.pretrained = self.student.weights.note
        terms = self._terms(task, teacher_shapes)
        self.objective = Objective(task, self.student, terms).to(device)
        self.optimizer = make_optimizer(self.student, self.recipe, terms.parameters() if terms else ())
        self._module: nn.Module = self.objective
        if distributed.world() > 1:
            self.objective = cast(Objective, distributed.synchronise_batch_norm(self.objective, device))
            self.student = self.objective.student
            self._module = DistributedDataParallel(self.objective, forward_sync_buffers=False)
        torch.manual_seed(self.training.seed + 2 + distributed.rank())
        self._cuda_rng: Tensor | None = None
        self._keep_rng()
        self._sums: dict[str, float] = {}
        self._streaks: Streaks = {}
        self._restore()
        # Once: walking through all modules in every step takes a tenth of a small student's.
        self.objective.train()
        self._parameters = list(self.objective.parameters())

    def _terms(self, task: Task, teacher_shapes: Shapes) -> WeightedTerms | None:
        terms = self.training.terms
        if not terms:
            return None
        taps = {tap for term in terms for tap in term.taps}
        sample = task.sample().to(self.device)
        paths = tap_paths(task, self.student, taps)
        shapes = observe(self.student, paths, lambda: task.forward(self.student, sample, taps))
        torch.manual_seed(self.training.seed + 1)
        return WeightedTerms(terms, shapes, teacher_shapes, classes=len(self.training.data.classes))

    def train_step(self, batch: Any, teacher: dict[str, Tensor]) -> None:
        """One optimiser step; on a loss that is not finite the learner ends, its last checkpoint untouched."""
        begin = now()
        self._use_rng()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step) * group["lr_factor"]
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")
        with autocast:
            losses = self._module(batch, teacher, self.step, self.recipe.steps)
        total = sum(losses.values())
        # Read before the backward pass: a GPU would have to end it first.
        read = {name: value.item() for name, value in losses.items()}
        if distributed.anywhere(not math.isfinite(total.item())):
            self._fail_at(read, batch.names)
            return
        total.backward()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self._parameters, self.recipe.clip)
        self.optimizer.step()
        # Now rather than before the next step: a group's learners wait for each other without holding gradients.
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._keep_rng()
        self._log(read)
        self.spent = self.spent.plus(now().since(begin))

    def _log(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        terms = self.objective.terms
        factors = terms.factors(self.step - 1, self.recipe.steps) if terms else {}
        # Of this process's share of the batch: a loss that stands still does so in every process.
        unscheduled = {name: value / factors.get(name, 1.0) for name, value in losses.items()}
        self._streaks = follow(self._streaks, unscheduled, self.step)
        every = self.recipe.log_every
        if self.step % every and self.step != self.recipe.steps:
            return
        count = every if self.step % every == 0 else self.step % every
        means = dict(zip(self._sums, distributed.mean_over_all([v / count for v in self._sums.values()]), strict=True))
        self._sums = {}
        if distributed.rank() == 0:
            rate = learning_rate(self.recipe, self.step - 1)
            add_line(self.folder, {"step": self.step, "lr": rate, "loss": sum(means.values()), **means})

    def validate(self, task: Task, evaluation: Evaluation, images: int) -> None:
        """Keep the metrics of the student as it is on so many images of a split; the training does not notice.

        Raises UserError for outputs that are not finite.
        """
        begin = now()
        found = task.evaluate(self.student, evaluation, self.device, images).metrics
        self.objective.train()
        self._use_rng()
        defined = {name: value for name, value in found.items() if math.isfinite(value)}
        add_line(self.folder, {"step": self.step, **defined}, VALIDATION)
        self.spent = self.spent.plus(now().since(begin))

    def _fail_at(self, losses: dict[str, float], names: list[str]) -> None:
        parts = ", ".join(f"{k} {v:.4g}" for k, v in losses.items())
        why = f"loss not finite at step {self.step + 1} ({parts}) on {', '.join(names)}"
        self.fail(why, {k: str(v) for k, v in losses.items()}, names)

    def fail(self, why: str, losses: dict[str, str] | None = None, files: list[str] | None = None) -> None:
        """End this learner and keep `failure.json`; its last good state stays."""
        self.failed = why
        if distributed.rank() == 0:
            found = Failure(step=self.step + 1, why=why, losses=losses or {}, files=files or [])
            store.note_failure(self.folder, found)

    def require_finite(self) -> None:
        """Raise UserError if a weight or a running statistic of the student is a NaN or an infinity."""
        if lost := not_finite(self.student):
            kept = read_progress(self.folder)
            raise UserError(
                f"{len(lost)} of {len(self.student.state_dict())} tensors of the weights are not finite after step "
                f"{self.step}, first {lost[0]}, and the last finite state is that of step {kept.step if kept else 0}; "
                "choose a smaller lr, a longer warmup or a smaller clip in params/recipes.yaml"
            )

    @property
    def standing(self) -> dict[str, Standstill]:
        """The losses that stood still in this training, which is finished."""
        unused = isinstance(self.recipe, SegmentationRecipe) and not self.recipe.aux_weight
        return stands_still(self._streaks, self.recipe.steps, {"aux"} if unused else ())

    def save(self) -> None:
        """Write the train state, unless a number in it is no longer finite: the last good state is kept then."""
        random = distributed.gather(self._rng)
        if distributed.rank() != 0 or not_finite(self.objective):
            return
        state: TrainState = {
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": random,
            "cuda_rng": self._cuda_rng,
            "sums": self._sums,
            "streaks": self._streaks,
            "spent": list(self.spent),
            "resumes": self.resumes,
        }
        save_state(self.folder, self.spec, self.step, state)

    def _restore(self) -> None:
        step, state, self.anew = load_state(self.folder, self.spec)
        if state:
            try:
                self._take(step, state)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise damaged(self.folder / STATE, first_line(error)) from None
        if distributed.rank() == 0:
            for file in (FILE, VALIDATION):
                cut_after(self.folder, self.step, file)

    def _take(self, step: int, state: TrainState) -> None:
        """Become what was saved; whatever torch raises for parts that do not fit leaves the learner unusable."""
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if len(state["rng"]) == distributed.world():
            self._rng = state["rng"][distributed.rank()]
            if self.device.type == "cuda" and state["cuda_rng"] is not None:
                self._cuda_rng = state["cuda_rng"]
            self._use_rng()
        self._sums = {name: float(value) for name, value in state["sums"].items()}
        self._streaks = {name: (float(value), int(since)) for name, (value, since) in state["streaks"].items()}
        wall, cpu = state["spent"]
        self.step, self.spent, self.resumes = step, Spent(float(wall), float(cpu)), int(state["resumes"]) + 1

    def _use_rng(self) -> None:
        torch.set_rng_state(self._rng)
        if self._cuda_rng is not None:
            torch.cuda.set_rng_state(self._cuda_rng, self.device)

    def _keep_rng(self) -> None:
        self._rng = torch.get_rng_state()
        self._cuda_rng = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None


def tap_paths(task: Task, model: DenseModel, names: Iterable[str]) -> dict[str, str]:
    """Module paths of the named taps of a model; UserError when the model has no such tap."""
    paths = task.taps(model)
    return {name: pick(paths, name, "params/methods.yaml: taps") for name in sorted(set(names))}
