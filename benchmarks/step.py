"""Where the time of a training step goes: data, teacher, student, optimiser and every distillation term.

    python benchmarks/step.py [--suite camvid] [--method bcd] [--steps 10] [--set recipe.batch=2] ...

Takes the first pair of a suite, whose data must have been fetched, with random weights; on the GPU if there is one.
Each part is timed alone, forward and backward, the median over the steps; a term counts the projectors it trains.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from bcd.config.load import load_params
from bcd.config.schema.recipes import AnyRecipe, SegmentationRecipe
from bcd.config.suites import load_suite
from bcd.distill.taps import Taps, observe
from bcd.distill.terms import WeightedTerms
from bcd.distributed import own_device
from bcd.errors import pick
from bcd.runs import expand
from bcd.runs.resolve import overridden
from bcd.runs.run import Run
from bcd.tasks import make_task
from bcd.train import job
from bcd.train.learner import tap_paths
from bcd.train.optimizer import make_optimizer


def chosen(suite_name: str, method: str, settings: dict[str, Any]) -> Run:
    """The first run of the method in the suite, with settings as of `bcd train --set`."""
    suite = load_suite(suite_name)
    runs = expand.suite_runs(load_params(), suite).values()
    methods = {run.method: run for run in reversed(runs) if run.teacher}
    run = pick(methods, method, f"params/suites/{suite_name}.yaml")
    return overridden(run, settings) if settings else run


def shown(recipe: AnyRecipe) -> str:
    """The size of a training image."""
    if isinstance(recipe, SegmentationRecipe):
        return f"crop {recipe.view.crop}"
    return f"short sides {recipe.view.resize.short_sides}"


class Step:
    """The parts of a training step, each callable alone."""

    def __init__(self, run: Run):
        self.device, self.recipe = own_device(), run.training.recipe
        self.task = make_task(run.training, job.DATA / run.files, in_memory=run.in_memory)
        teacher, student = (
            asked.training.model.model_copy(update={"pretrained": "none"}) for asked in (run.teacher, run)
        )
        self.teacher = self.task.build(teacher).to(self.device).eval().requires_grad_(False)
        self.student = self.task.build(student).to(self.device).train()
        self.optimizer = make_optimizer(self.student, self.recipe)
        terms = [term for term in run.training.terms if term.weight]
        self.names = names = [tap for term in terms for tap in term.taps]
        paths = [tap_paths(self.task, model, names) for model in (self.student, self.teacher)]
        sample = self.task.sample().to(self.device)
        models = self.student, self.teacher
        shapes = [
            observe(model, p, lambda model=model: self.task.forward(model, sample, names))
            for model, p in zip(models, paths, strict=True)
        ]
        classes = len(run.training.data.classes)
        self.terms = [WeightedTerms([term], *shapes, classes=classes).to(self.device) for term in terms]
        self.student_taps, self.teacher_taps = (
            Taps(model, p) for model, p in zip((self.student, self.teacher), paths, strict=True)
        )
        self.batches = self.task.batches(0, rank=0, world=1, workers=run.runtime.workers)

    def run(self, note: Callable[[str, float], None]) -> None:
        """One step; `note` is told each part's name and seconds."""
        batch = self._timed(note, "data", lambda: next(self.batches).to(self.device))
        batch = self._timed(note, "teacher forward", lambda: self._forward_teacher(batch))
        teacher = self.teacher_taps.read()
        self._timed(note, "student forward and backward", lambda: self._train_student(batch))
        student = {name: tap.detach() for name, tap in self.student_taps.read().items()}
        self._timed(note, "optimiser", self.optimizer.step)
        for term in self.terms:
            name = f"term {term.keys[0]} ({', '.join(term.taps)})"
            self._timed(note, name, lambda term=term: self._distil(term, student, teacher, batch))

    def _timed(self, note: Callable[[str, float], None], name: str, part: Callable):
        self._wait()
        begin = time.perf_counter()
        result = part()
        self._wait()
        note(name, time.perf_counter() - begin)
        return result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    @torch.no_grad()
    def _forward_teacher(self, batch: Any) -> Any:
        with self._autocast():
            return self.task.forward(self.teacher, batch, self.names)

    def _train_student(self, batch: Any) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            losses = self.task.losses(self.student, batch)
        sum(losses.values()).backward()

    def _distil(self, term: WeightedTerms, student: dict, teacher: dict, batch: Any) -> None:
        leaves = {name: tap.requires_grad_() for name, tap in student.items()}
        with self._autocast():
            losses = term(leaves, teacher, step=0, total=1, **batch.facts())
        sum(losses.values()).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="camvid")
    parser.add_argument("--method", default="bcd")
    parser.add_argument("--steps", type=int, default=10, help="measured, after two that are not")
    parser.add_argument("--set", action="append", default=[], help="as of `bcd train`: recipe.batch=2")
    options = parser.parse_args()
    from bcd.cli.main import settings_of

    run = chosen(options.suite, options.method, settings_of(options.set) | {"recipe.steps": options.steps + 2})
    step, seconds = Step(run), defaultdict(list)
    for _ in range(options.steps + 2):
        step.run(lambda name, taken: seconds[name].append(taken))
    medians = {name: statistics.median(taken[2:]) for name, taken in seconds.items()}
    total = sum(medians.values())
    recipe = run.training.recipe
    print(f"{run.key}: batch {recipe.batch}, {shown(recipe)}, {recipe.precision}, {step.device}, "
          f"{torch.get_num_threads()} threads\n\n| part | ms | share of the step |\n|---|---:|---:|")  # fmt: skip
    for name, taken in medians.items():
        print(f"| {name} | {taken * 1e3:.1f} | {taken / total:.1%} |")
    terms = sum(taken for name, taken in medians.items() if name.startswith("term"))
    print(f"| all terms | {terms * 1e3:.1f} | {terms / total:.1%} |")


if __name__ == "__main__":
    main()
