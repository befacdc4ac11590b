"""One student in training: its objective, optimiser, random state and history.

Learners of a group share batches and teacher outputs and nothing else; each swaps its own random state in before it
draws, so its result does not depend on its company.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bcd import distributed
from bcd.distill.distiller import Distiller, WeightedTerm, observe
from bcd.distill.taps import Taps
from bcd.errors import UserError, pick
from bcd.files import atomic_write
from bcd.runs.store import dump
from bcd.tasks import Task
from bcd.train.checkpoint import load_state, save_state


class Objective(nn.Module):
    """Task losses plus distillation losses of one batch; owns the student, never the teacher."""

    def __init__(self, task: Task, student: nn.Module, distiller: Distiller | None):
        super().__init__()
        self.student, self.distiller = student, distiller
        self._task = task
        names = [tap for term in distiller.terms for tap in term.taps] if distiller else []
        self._taps = Taps(student, tap_paths(task, student, names))

    def forward(self, batch: Any, teacher: dict[str, Tensor], step: int, total: int) -> dict[str, Tensor]:
        if self.distiller is None:
            return self._task.losses(self.student, batch.labelled_part())
        losses = self._task.losses(self.student, batch)
        return losses | self.distiller(self._taps.read(), teacher, step=step, total=total, **batch.facts())


class Learner:
    """Trains the student of one spec. `failed` holds the reason once its loss was not finite."""

    def __init__(
        self,
        spec: dict,
        spec_hash: str,
        folder: Path,
        task: Task,
        teacher_shapes: dict,
        device: torch.device,
    ):
        self.spec, self.hash, self.folder, self.device = spec, spec_hash, folder, device
        self.recipe = spec["recipe"]
        self.step, self.seconds, self.resumes, self.failed = 0, 0.0, 0, None
        torch.manual_seed(spec["seed"])
        student = task.build(spec["model"]).to(device)
        if not self.recipe["steps"]:
            _require_whole(student, spec["model"]["pretrained"])
        self.pretrained = student.weights.note
        self.objective = Objective(task, student, self._distiller(task, student, teacher_shapes, device)).to(device)
        self.student = student
        distiller = self.objective.distiller
        self.optimizer = make_optimizer(student, self.recipe, distiller.parameters() if distiller else ())
        self._module = self.objective
        if distributed.world() > 1:
            self.objective = distributed.synchronise_batch_norm(self.objective, device)
            self.student = self.objective.student
            self._module = DistributedDataParallel(self.objective, forward_sync_buffers=False)
        torch.manual_seed(spec["seed"] + 2 + distributed.rank())
        self._keep_rng()
        self._sums: dict[str, float] = {}
        self._restore()

    def _distiller(self, task: Task, student: nn.Module, teacher_shapes: dict, device) -> Distiller | None:
        if not self.spec["terms"]:
            return None
        terms = [WeightedTerm(**term) for term in self.spec["terms"]]
        taps = {tap for term in terms for tap in term.taps}
        sample = task.sample().to(device)
        shapes = observe(student, tap_paths(task, student, taps), lambda: task.forward(student, sample, taps))
        torch.manual_seed(self.spec["seed"] + 1)
        return Distiller(terms, shapes, teacher_shapes, classes=len(self.spec["data"]["classes"]))

    def train_step(self, batch: Any, teacher: dict[str, Tensor]) -> None:
        """One optimiser step; on a loss that is not finite the learner ends, its last checkpoint untouched."""
        begin = time.perf_counter()
        self._use_rng()
        self.objective.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step) * group["lr_factor"]
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe["precision"] == "bf16")
        with autocast:
            losses = self._module(batch, teacher, self.step, self.recipe["steps"])
        total = sum(losses.values())
        if distributed.anywhere(not math.isfinite(total.item())):
            self._fail({k: v.item() for k, v in losses.items()}, batch.names)
            return
        total.backward()
        if self.recipe["clip"]:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe["clip"])
        self.optimizer.step()
        # Now rather than before the next step: a group's learners wait for each other without holding gradients.
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._keep_rng()
        self._log({k: v.detach() for k, v in losses.items()})
        self.seconds += time.perf_counter() - begin

    def _log(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.item()
        every = self.recipe["log_every"]
        if self.step % every and self.step != self.recipe["steps"]:
            return
        count = every if self.step % every == 0 else self.step % every
        means = dict(zip(self._sums, distributed.mean_over_all([v / count for v in self._sums.values()]), strict=True))
        self._sums = {}
        if distributed.rank() == 0:
            line = {
                "step": self.step,
                "lr": learning_rate(self.recipe, self.step - 1),
                "loss": sum(means.values()),
                **means,
            }
            with (self.folder / "history.jsonl").open("a") as history:
                history.write(json.dumps(line, sort_keys=True) + "\n")

    def _fail(self, losses: dict[str, float], names: list[str]) -> None:
        self.failed = (
            f"loss not finite at step {self.step + 1} ({', '.join(f'{k} {v:.4g}' for k, v in losses.items())}) "
            f"on {', '.join(names)}"
        )
        if distributed.rank() == 0:
            report = {"step": self.step + 1, "losses": {k: str(v) for k, v in losses.items()}, "files": names}
            atomic_write(self.folder / "failure.json", dump(report))

    def save(self) -> None:
        """Write the train state, unless a parameter is no longer finite: the last good state is kept then."""
        random = distributed.gather(self._rng)
        if distributed.rank() != 0 or not all(p.isfinite().all() for p in self.student.parameters()):
            return
        save_state(
            self.folder,
            {
                "spec": self.hash,
                "step": self.step,
                "objective": self.objective.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rng": random,
                "cuda_rng": self._cuda_rng,
                "sums": self._sums,
                "seconds": self.seconds,
                "resumes": self.resumes,
            },
        )

    def _restore(self) -> None:
        state = load_state(self.folder, self.hash)
        if state:
            self.step, self.seconds, self._sums = state["step"], state["seconds"], state["sums"]
            self.resumes = state["resumes"] + 1
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            if len(state["rng"]) == distributed.world():
                self._rng, self._cuda_rng = state["rng"][distributed.rank()], state["cuda_rng"]
        if distributed.rank() == 0:
            _cut_history(self.folder / "history.jsonl", self.step)

    def finish(self) -> dict[str, Any]:
        """Facts for the record."""
        return {"steps": self.step, "train_seconds": round(self.seconds, 3), "resumes": self.resumes,
                "step_seconds": self.seconds / max(1, self.step), "threads": torch.get_num_threads(),
                "pretrained": self.pretrained}  # fmt: skip

    def _use_rng(self) -> None:
        torch.set_rng_state(self._rng)
        if self._cuda_rng is not None:
            torch.cuda.set_rng_state(self._cuda_rng, self.device)

    def _keep_rng(self) -> None:
        self._rng = torch.get_rng_state()
        self._cuda_rng = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None


def tap_paths(task: Task, model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Module paths of the named taps of a model; UserError when the model has no such tap."""
    paths = task.taps(model)
    return {name: pick(paths, name, "params/methods.yaml: taps") for name in sorted(set(names))}


def learning_rate(recipe: dict[str, Any], step: int) -> float:
    """Poly decay with a floor, `(lr - min_lr) (1 - t/T)^power + min_lr`, a tenth of it after each step of `decay_at`,
    after a linear warm-up."""
    rate = (recipe["lr"] - recipe["min_lr"]) * (1 - step / recipe["steps"]) ** recipe["power"] + recipe["min_lr"]
    rate *= 0.1 ** sum(step >= decay for decay in recipe["decay_at"])
    return rate * min(1.0, (step + 1) / recipe["warmup"]) if recipe["warmup"] else rate


def make_optimizer(
    student: nn.Module, recipe: dict[str, Any], others: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The recipe's optimiser over a student and `others`, parameters of its distillation terms, which follow the
    recipe's plain learning rate and decay. A group's learning rate is that of the recipe times its `lr_factor`."""
    groups = parameter_groups(student, recipe.get("lr_factors", {}), recipe.get("no_decay", []))
    groups.setdefault((1.0, True), []).extend(p for p in others if p.requires_grad)
    decay = recipe["weight_decay"]
    listed = [
        {"params": parameters, "lr_factor": factor, "weight_decay": decay if decays else 0.0}
        for (factor, decays), parameters in groups.items()
        if parameters
    ]
    # Fused: one pass over all tensors; for small models the plain loop is a good part of a step.
    common = {"lr": recipe["lr"], "fused": True}
    if recipe["optimizer"] == "sgd":
        return torch.optim.SGD(listed, momentum=recipe["momentum"], **common)
    return torch.optim.AdamW(listed, **common)


def parameter_groups(
    model: nn.Module, lr_factors: dict[str, float], no_decay: list[str]
) -> dict[tuple[float, bool], list[nn.Parameter]]:
    """(factor of the learning rate, whether it is decayed) -> the trainable parameters, in the model's order.

    The words mean what `bcd.config.schema.Recipe` says. Raises UserError for a word that stands in no parameter's name.
    """
    names = [name for name, _ in model.named_parameters()]
    for field, words in (("lr_factors", lr_factors), ("no_decay", no_decay)):
        for word in words:
            if not any(word in name for name in names):
                raise UserError(
                    f"the recipe's {field}: no parameter of this model has '{word}' in its name, such as {names[0]} or "
                    f"{names[-1]}; correct the word in params/recipes.yaml"
                )
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fitting = [word for word in lr_factors if word in name]
            factor = lr_factors[max(fitting, key=len)] if fitting else 1.0
            groups.setdefault((factor, not any(word in name for word in no_decay)), []).append(parameter)
    return groups


def _require_whole(model: nn.Module, file: str) -> None:
    """A model that is not trained must come whole from its file, but for an auxiliary head, which predicts nothing."""
    unfilled = [name for name in model.weights.unfilled if not name.startswith("aux.")]
    if unfilled:
        raise UserError(
            f"the recipe has no steps and {file} leaves {len(unfilled)} tensors of the model at random, first "
            f"{unfilled[0]}; correct the model's head, channels or classes, or train it"
        )


def _cut_history(path: Path, step: int) -> None:
    """Drop lines that a killed attempt wrote after its last checkpoint (the last one may be half a line)."""
    if not path.exists():
        return
    lines = path.read_text().splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    if kept != lines:
        atomic_write(path, "".join(line + "\n" for line in kept))
