"""What the runs of a new suite will take, by records of like runs or by a forward pass of each model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from bcd.config.schema.models import DetectionModel
from bcd.config.schema.recipes import AnyRecipe, SegmentationRecipe
from bcd.config.schema.suites import Params, Suite
from bcd.planning import budget, cost, survey
from bcd.runs import expand
from bcd.runs.run import Run

if TYPE_CHECKING:
    import torch

PASSES = 2  # of which the first warms up


def hours(params: Params, suite: Suite) -> list[str]:
    """The lines of `bcd plan` about hours and disk.

    Where no record says how long a step of a model takes, it is a forward pass of a batch on random pixels, divided by
    what planning takes a forward pass to be of a step.
    """
    rows = expand.suite_rows(params, suite)
    runs = expand.distinct_runs(suite.name, rows)
    rates = cost.measured(survey.RESULTS)
    unknown = {run.model: run for run in runs.values() if rates.step(run).seconds is None}
    stated = {model: forward_seconds(run) / rates.forward_share for model, run in unknown.items()}
    rates = replace(rates, stated=stated)
    said = (
        f"A stated step is {1 / rates.forward_share:g} forward passes of its model, one of which was timed here."
        if stated
        else ""
    )
    return [
        *budget.report(params, rows, survey.survey(suite.name, runs, rates), rates, None),
        *([said] if said else []),
    ]


def forward_seconds(run: Run) -> float:
    """Of a run's model on one batch as large as the recipe's; on a CPU of the processor, shared by the threads."""
    import torch

    recipe = run.training.recipe
    height, width = _shown(recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    image = torch.rand(recipe.batch, 3, height, width, device=device)
    forward = _forward(run, device)
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        with torch.no_grad():
            for _ in range(PASSES):
                begin = _clock(device)
                forward(image)
            return (_clock(device) - begin) / (1 if device.type == "cuda" else recipe.threads)
    finally:
        torch.set_num_threads(threads)


def _shown(recipe: AnyRecipe) -> tuple[int, int]:
    """Height and width of a batch."""
    if isinstance(recipe, SegmentationRecipe):
        return recipe.view.crop[0], recipe.view.crop[1]
    short, long, pad = max(recipe.view.resize.short_sides), recipe.view.resize.max_long_side, recipe.view.pad
    return -(-short // pad) * pad, -(-long // pad) * pad


def _forward(run: Run, device: torch.device) -> Callable[[torch.Tensor], object]:
    """A run's model, from random weights, as a function of a batch (N, 3, H, W)."""
    from bcd.models import build
    from bcd.models.detection import build_detector

    model, classes = (
        run.training.model.model_copy(update={"pretrained": "none", "freeze": None}),
        run.training.data.classes,
    )
    if not isinstance(model, DetectionModel):
        return build(model, len(classes)).eval().to(device)
    detector = build_detector(model, len(classes)).eval().to(device)

    def detect(image: torch.Tensor) -> object:
        sizes = [(image.shape[2], image.shape[3])] * len(image)
        return detector.detect(image, sizes, sizes)

    return detect


def _clock(device: torch.device) -> float:
    """Seconds: of the processor, which other programs do not stretch; on a GPU of the wall, once it is done."""
    import torch

    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
