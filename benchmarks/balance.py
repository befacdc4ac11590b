"""At which weight a term pulls a student as hard as its task loss does: a starting point for choosing weights.

    python benchmarks/balance.py [--suite scenes] [--table NAME] [--steps 60] [--batches 5] [--methods kd cwd ...]

For every term of the rows of a table, with their options, or of the methods named: the norm of the task loss's
gradient over that of the term at weight 1, both by the student's parameters that learn, after some steps of plain
training; the root mean square over batches. Needs the suite's teacher (`snakemake teachers --config suite=NAME`). A
minute or two for `scenes`.
"""

import argparse

import torch

from bcd.config.load import load_params
from bcd.config.schema.methods import TAPS
from bcd.config.suites import load_suite
from bcd.distill.taps import Taps, observe
from bcd.distill.terms import WeightedTerms
from bcd.distributed import own_device
from bcd.errors import pick
from bcd.runs import expand
from bcd.runs.resolve import overridden
from bcd.tasks import make_task
from bcd.train import job
from bcd.train.learner import tap_paths
from bcd.train.optimizer import make_optimizer
from bcd.train.trained import load_model


def squared_norm(losses: dict[str, torch.Tensor], student: torch.nn.Module) -> float:
    """Squared norm of the gradient of a sum of losses by the student's parameters that learn."""
    learning = [parameter for parameter in student.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(sum(losses.values()), learning, allow_unused=True, retain_graph=True)
    return sum(g.double().square().sum().item() for g in gradients if g is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="scenes")
    parser.add_argument("--table", help="of the suite; the first by default")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--methods", nargs="*", help="of params/methods.yaml; the rows of the table by default")
    options = parser.parse_args()
    params, suite = load_params(), load_suite(options.suite)
    tables = expand.suite_rows(params, suite)
    rows = pick(tables, options.table, f"{suite.name}: --table") if options.table else next(iter(tables.values()))
    students = {row.method: row.runs[0] for row in rows if row.runs[0].distilled_from}
    run = next(iter(students.values()))
    run = overridden(run, {"recipe.steps": options.steps + options.batches})
    torch.set_num_threads(run.training.recipe.threads)
    task = make_task(run.training, job.DATA / run.files, in_memory=run.in_memory)
    device = own_device()
    folder = job.RESULTS / "store" / job.teacher_of(suite.name, run).store
    torch.manual_seed(0)
    teacher = load_model(task, run.teacher.training.model, folder).to(device).eval().requires_grad_(False)
    student = task.build(run.training.model).to(device).train()
    batches = task.batches(0, rank=0, world=1, workers=0)
    optimizer = make_optimizer(student, run.training.recipe)
    for group in optimizer.param_groups:
        group["lr"] *= group["lr_factor"]
    for _ in range(options.steps):
        optimizer.zero_grad()
        sum(task.losses(student, next(batches).to(device)).values()).backward()
        optimizer.step()
    taps = [tap for tap in TAPS if tap in task.taps(student)]
    paths = [tap_paths(task, model, taps) for model in (student, teacher)]
    sample = task.sample().to(device)
    shapes = [
        observe(model, p, lambda model=model: task.forward(model, sample, taps))
        for model, p in zip((student, teacher), paths, strict=True)
    ]
    seen_student, seen_teacher = (Taps(model, p) for model, p in zip((student, teacher), paths, strict=True))
    print("| method | term | taps | weight of the preset | weight of equal gradients |\n|---|---|---|---:|---:|")
    batches = [next(batches).to(device) for _ in range(options.batches)]
    classes = len(run.training.data.classes)
    asked = {name: pick(params.methods, name, "--methods").terms for name in options.methods or ()}
    for name, terms in (asked or {name: student.training.terms for name, student in students.items()}).items():
        for entry in terms:
            term = entry.model_copy(update={"weight": 1.0, "schedule": "constant", "warmup": 0})
            torch.manual_seed(1)
            weighted = WeightedTerms([term], *shapes, classes=classes).to(device)
            own = plain = 0.0
            for batch in batches:
                shared = task.forward(teacher, batch, taps)
                losses = task.losses(student, shared)
                plain += squared_norm(losses, student)
                pulls = weighted(seen_student.read(), seen_teacher.read(), step=0, total=1, **shared.facts())
                own += squared_norm(pulls, student)
            equal = (plain / own) ** 0.5 if own else float("inf")
            print(f"| {name} | {entry.term} | {', '.join(entry.taps)} | {entry.weight:g} | {equal:.3g} |", flush=True)


if __name__ == "__main__":
    main()
