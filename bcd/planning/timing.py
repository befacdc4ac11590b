"""Times training steps of models that no record knows: a few of each, on this machine, with invented images.

What is timed is what training does, by the code that does it: a teacher's forward pass, then a step (forward, terms,
backward, optimiser) of each student of the job. Weights are random, and reading images is left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd.config.schema.recipes import SegmentationRecipe
from bcd.planning.cost import CPU, MEASURED, Rates, kind_of_group, kind_of_run
from bcd.planning.step_times import StepTimes, Timing
from bcd.runs.expand import groups
from bcd.runs.provenance import hardware
from bcd.runs.run import Run
from bcd.runs.spec import RunSpec, Training

if TYPE_CHECKING:
    import torch

    from bcd.tasks.task import Task
    from bcd.train.clock import Spent

WARM = 1  # steps before those that are timed: the first ones allocate and choose kernels
STEPS, FEWEST = 7, 3  # steps that are timed, and how many of them at least once SECONDS are over
SECONDS = 3.0  # for the timed steps of a job
PATCH = 32  # pixels of the squares of one class in an invented label map
OBJECTS = 8  # of an invented image


def timed(runs: Mapping[str, Run], known: Rates) -> StepTimes:
    """Times of each kind of step of these runs of which `known` has no record; about SECONDS for each kind of job.

    Uses torch's global random state and number of threads, and puts the latter back.
    """
    found = StepTimes()
    for job in groups(dict(runs)).values():
        wanted = {kind_of_run(run.training, bool(run.training.terms)) for run in job if run.training.recipe.steps}
        recorded = {kind for kind, rate in known.steps.items() if rate.origin == MEASURED}
        if wanted - recorded - found.steps.keys():
            found = found.joined(_of_job(job))
    return found


def _of_job(job: Sequence[Run]) -> StepTimes:
    """Of the runs of one job, side by side as training has them."""
    import torch

    from bcd import distributed

    device = distributed.own_device()
    threads = torch.get_num_threads()
    torch.set_num_threads(job[0].training.recipe.threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _steps(list({run.training.hash: run for run in job}.values()), Path(folder), device)
    finally:
        torch.set_num_threads(threads)


def _steps(runs: Sequence[Run], folder: Path, device: torch.device) -> StepTimes:
    from bcd.tasks import make_task
    from bcd.train.clock import Spent
    from bcd.train.learner import Learner

    trainings = {run.key: _untrained(run.training) for run in runs}
    first = trainings[runs[0].key]
    task = make_task(first, folder)
    taught = next((run for run in runs if run.training.terms and run.teacher), None)
    forward, shapes = _teacher(task, taught, {tap for t in trainings.values() for term in t.terms for tap in term.taps},
                               device) if taught else (None, {})  # fmt: skip
    learners = {}
    for number, run in enumerate(runs):
        (folder / str(number)).mkdir()
        spec = RunSpec(trainings[run.key], "")
        learners[run.key] = Learner(spec, folder / str(number), task, shapes, device)
    batch = _invented(task.sample(), first, device)
    samples: dict[str, list[float]] = {run.key: [] for run in runs}
    shared: list[float] = []
    begin = time.perf_counter()
    for step in range(WARM + STEPS):
        if step == WARM:
            begin = time.perf_counter()
        if step >= WARM + FEWEST and time.perf_counter() - begin > SECONDS:
            break
        tensors: dict[str, torch.Tensor] = {}
        seen = batch
        if forward:
            spent = _spent(device)
            tensors, seen = forward(batch)
            shared.append(_seconds(_spent(device).since(spent), first, device))
        for key, learner in learners.items():
            learner.spent = Spent()
            learner.train_step(seen, tensors)
            if not learner.failed:
                samples[key].append(_seconds(learner.spent, first, device))
    return _by_kind(runs, samples, shared[WARM:], taught, device)


def _by_kind(
    runs: Sequence[Run],
    samples: Mapping[str, list[float]],
    shared: list[float],
    taught: Run | None,
    device: torch.device,
) -> StepTimes:
    """The seconds of single steps under the kinds that planning asks for."""
    facts = hardware()
    name = facts.gpu or "GPU" if device.type == "cuda" else f"{CPU}{facts.cpu}"
    steps: dict[str, list[float]] = {}
    for run in runs:
        steps.setdefault(kind_of_run(run.training, bool(run.training.terms)), []).extend(samples[run.key][WARM:])
    found = {kind: Timing(device=name, seconds=seconds) for kind, seconds in steps.items() if seconds}
    if not taught or not taught.teacher:
        return StepTimes(steps=found)
    kind = kind_of_group(taught.training, taught.teacher.training.model)
    return StepTimes(steps=found, shared={kind: Timing(device=name, seconds=shared)})


def _untrained(training: Training) -> Training:
    """The training from random weights, without weights of classes, and with more steps than are timed.

    The weights need files that may not be there.
    """
    recipe = training.recipe.model_copy(update={"steps": max(training.recipe.steps, WARM + STEPS)})
    if isinstance(recipe, SegmentationRecipe):
        recipe = recipe.model_copy(update={"class_weights": "none"})
    model = training.model.model_copy(update={"pretrained": "none"})
    return replace(training, model=model, recipe=recipe, pretrained_sha256=None)


def _teacher(
    task: Task, run: Run, names: set[str], device: torch.device
) -> tuple[Callable[[Any], tuple[dict[str, torch.Tensor], Any]], dict[str, torch.Size]]:
    """The forward pass of a run's teacher, from random weights, as that of `bcd.train.teacher`; its taps' shapes."""
    import torch

    from bcd.distill.taps import Taps, observe
    from bcd.train.learner import tap_paths

    assert run.teacher is not None
    model = task.build(_untrained(run.teacher.training).model).to(device).requires_grad_(False).eval()
    known = names & task.taps(model).keys()
    paths = tap_paths(task, model, known)
    sample = task.sample().to(device)
    shapes = observe(model, paths, lambda: task.forward(model, sample, known))
    taps, half = Taps(model, paths), run.training.recipe.precision == "bf16"

    @torch.no_grad()
    def forward(batch: Any) -> tuple[dict[str, torch.Tensor], Any]:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            seen = task.forward(model, batch, known)
        return taps.read(), seen

    return forward, shapes


def _invented(sample: Any, training: Training, device: torch.device) -> Any:
    """A batch as large as the recipe's: noise, with labels in squares or objects in boxes."""
    import torch

    from bcd.data.semantic.stream import Batch
    from bcd.label import IGNORE

    recipe, classes = training.recipe, len(training.data.classes)
    images = recipe.batch + (recipe.unlabelled_batch if isinstance(recipe, SegmentationRecipe) else 0)
    height, width = sample.image.shape[2:]
    image, valid = torch.randn(images, 3, height, width), torch.ones(images, height, width, dtype=torch.bool)
    names = ["invented"] * images
    if isinstance(sample, Batch):
        squares = torch.randint(0, classes, (images, -(-height // PATCH), -(-width // PATCH)))
        label = squares.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, :height, :width].contiguous()
        label[recipe.batch :] = IGNORE
        return Batch(image, label, valid, recipe.batch, names).to(device)
    targets = [_objects(height, width, classes, training.task == "instance") for _ in range(images)]
    sizes = [(height, width)] * images
    return replace(sample, image=image, sizes=sizes, targets=targets, valid=valid, names=names, labelled=images).to(
        device
    )


def _objects(height: int, width: int, classes: int, masks: bool) -> Any:
    """Boxes of a quarter of the image's sides, and their masks."""
    import torch

    from bcd.models.detection.detector import Targets

    corner = torch.rand(OBJECTS, 2) * torch.tensor([0.75 * width, 0.75 * height])
    boxes = torch.cat([corner, corner + torch.tensor([0.25 * width, 0.25 * height])], 1)
    drawn = torch.zeros(OBJECTS, height, width, dtype=torch.uint8) if masks else None
    for number, (left, top, right, bottom) in enumerate(boxes.int().tolist() if drawn is not None else []):
        assert drawn is not None
        drawn[number, top : bottom + 1, left : right + 1] = 1
    return Targets(boxes, torch.randint(0, classes, (OBJECTS,)), drawn)


def _spent(device: torch.device) -> Spent:
    """The clocks, once a GPU is done."""
    import torch

    from bcd.train.clock import now

    if device.type == "cuda":
        torch.cuda.synchronize()
    return now()


def _seconds(spent: Spent, training: Training, device: torch.device) -> float:
    """What planning counts: the wall, or on a CPU the processor's time, shared by the threads, where that is less."""
    return spent.wall if device.type == "cuda" else min(spent.wall, spent.cpu / training.recipe.threads)
