"""What the runs of a new suite will take, by records of like runs or by a forward pass of each model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from bcd.config.schema.suites import Params, Suite
from bcd.planning import budget, cost, survey
from bcd.runs import expand
from bcd.runs.run import Run

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
    return budget.report(params, rows, survey.survey(suite.name, runs, rates), rates, None)


def forward_seconds(run: Run) -> float:
    """Of a run's model on one batch as large as the recipe's; on a CPU of the processor, shared by the threads."""
    import torch

    from bcd.models import build
    from bcd.models.detection import build_detector

    training, recipe = run.training, run.training.recipe
    view: Mapping[str, object] = recipe.view.model_dump()
    resize = view.get("resize")
    side = [resize["max_long_side"], resize["short_sides"][-1]] if isinstance(resize, dict) else [0, 0]
    height, width = view["crop"] if "crop" in view else [-(-one // 32) * 32 for one in side]  # type: ignore[misc]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plain = training.model.model_copy(update={"pretrained": "none", "freeze": None})
    semantic = training.task == "semantic"
    model = (build if semantic else build_detector)(plain, len(training.data.classes)).eval().to(device)  # type: ignore[operator]
    image = torch.rand(recipe.batch, 3, height, width, device=device)
    threads, sizes = torch.get_num_threads(), [(height, width)] * recipe.batch
    torch.set_num_threads(recipe.threads)
    try:
        with torch.no_grad():
            for _ in range(PASSES):
                begin = _clock(device)
                model(image) if semantic else model.detect(image, sizes, sizes)
            return (_clock(device) - begin) / (1 if device.type == "cuda" else recipe.threads)
    finally:
        torch.set_num_threads(threads)


def _clock(device: object) -> float:
    """Seconds: of the processor, which other programs do not stretch; on a GPU of the wall, once it is done."""
    import torch

    if str(device) == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
