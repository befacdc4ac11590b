"""What to train on a described folder: models, recipes and methods of our own suites, cut to its size and machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bcd.config.index_weights import INDEX, weights_file
from bcd.config.schema.base import TaskName
from bcd.config.schema.recipes import AnyRecipe, SegmentationRecipe
from bcd.config.schema.suites import Pair, Params, Table, Variant
from bcd.config.suites import load_suite
from bcd.errors import UserError, counted, nearest
from bcd.scaffold.look import Described

# Task and whether ImageNet weights are at hand -> the suite and the table that are taken for a pattern.
PATTERNS: dict[tuple[TaskName, bool], tuple[str, str]] = {
    ("semantic", True): ("camvid-pretrained", "lite"),
    ("semantic", False): ("camvid-mini", "camvid-mini"),
    ("detection", True): ("scenes-pretrained", "detection"),
    ("detection", False): ("scenes", "detection"),
    ("instance", True): ("scenes-pretrained", "instance"),
    ("instance", False): ("scenes", "instance"),
}
METHODS: dict[TaskName, tuple[str, ...]] = {
    "semantic": ("none", "kd", "cwd", "bcd", "pbd"),
    "detection": ("none", "cwd", "pkd", "bcd"),
    "instance": ("none", "cwd", "pkd", "bcd"),
}
ALIKE = 0.02  # aspect ratios that differ by less are one
GRID = 32  # crops are a multiple of it, which is the coarsest stride of the models
MEMORY = 2 * 10**9  # bytes of decoded images that are kept
MOST_DETECTIONS = 100  # COCO's metrics look at no more
SEEDS = 3
TABLE = "students"  # what the one table of a suite is called


@dataclass(frozen=True)
class Machine:
    """What trains: GPUs, and the cores that a process may use."""

    gpus: int
    cores: int


@dataclass(frozen=True)
class Size:
    """How much a machine can do: the long side of an image, the short side for detectors, steps, images of a step.

    steps: of teacher and student the passes over the training images, and the least and the most steps.
    """

    long_side: int
    short_side: int
    teacher: tuple[int, int, int]
    student: tuple[int, int, int]
    batch: int | None


CPU = Size(long_side=480, short_side=224, teacher=(20, 150, 1000), student=(10, 60, 300), batch=None)
CPU_DETECTOR = replace(CPU, teacher=(10, 150, 600), student=(5, 60, 200))
GPU = Size(long_side=1024, short_side=640, teacher=(60, 2000, 20000), student=(60, 2000, 20000), batch=16)


@dataclass(frozen=True)
class Choice:
    """What the entry has beside its description, the suite, and why; `suite` are the values of its file."""

    entry: dict[str, Any]
    suite: dict[str, Any]
    reasons: list[str]


def this_machine() -> Machine:
    """The GPUs that torch can use, and the cores of this process."""
    import torch

    return Machine(torch.cuda.device_count(), len(os.sched_getaffinity(0)))


def weights_at_hand() -> bool:
    """Whether the packages with ImageNet weights are installed."""
    try:
        return all(weights_file(backbone).is_file() for backbone in INDEX)
    except UserError:
        return False


def choose(
    name: str, task: TaskName, described: Described, machine: Machine, params: Params, folder: Path = Path("params")
) -> Choice:
    """The suite `name` for a folder.

    params, folder: of the project, whose suites have the patterns.
    """
    size = GPU if machine.gpus else CPU if task == "semantic" else CPU_DETECTOR
    pretrained = weights_at_hand()
    suite_name, table_name = PATTERNS[task, pretrained]
    table = next(one for one in load_suite(suite_name, folder).tables if one.name == table_name)
    pair = table.pairs[0]
    pattern = params.datasets[pair.dataset]
    entry: dict[str, Any] = {"mean": pattern.mean, "std": pattern.std}
    reasons = [
        f"models {pair.teacher} and {pair.student}, their recipes and the weights of the methods: as in the table "
        f"{table_name} of the suite {suite_name}"
        + ("" if pretrained else "; the extra `weights` is not installed, so they start from random weights")
    ]
    settings, seen = _seen(task, described, size, params, pair)
    entry |= seen
    train = described.entry["splits"]["train"]
    steps = {pair.teacher_recipe: size.teacher, pair.recipe: size.student}
    for recipe, (passes, least, most) in steps.items():
        batch = size.batch or params.recipes[recipe].batch
        count = min(max(round(passes * train / batch), least), most)
        settings[f"recipes.{recipe}.steps"] = count
        reasons.append(
            f"{recipe}: {count} steps of {batch} images, so {counted(round(count * batch / train), 'pass')} over "
            f"{counted(train, 'image')}"
        )
    if machine.gpus:
        settings |= {"recipes.*.batch": size.batch, "recipes.*.precision": "bf16", "recipes.*.runtime.gpus": 1,
                     "recipes.*.runtime.workers": min(8, machine.cores)}  # fmt: skip
    elif any(params.recipes[recipe].threads > 1 for recipe in steps):
        # Threads wait for each other: beside other programs, a step of two took seven times as long as a step of one.
        settings["recipes.*.threads"] = 1
        reasons.append("each job computes with one thread, as jobs of several are slow beside other programs")
    if task != "semantic":
        most = min(max(20, 2 * described.objects), MOST_DETECTIONS)
        settings["models.*.detection.max_detections"] = most
        reasons.append(
            f"an image has {counted(described.objects, 'object')} at most, so no more than {most} are kept of one"
        )
    split = next(one for one in ("test", "val", "train") if one in described.entry["splits"])
    place = counted(machine.gpus, "GPU") if machine.gpus else f"{counted(machine.cores, 'core')} without a GPU"
    reasons.append(f"{SEEDS} paired seeds, evaluated on the split {split}, sized for {place}")
    return Choice(entry, _suite(name, task, table, suite_name, settings, split, train), reasons)


def _suite(
    name: str, task: TaskName, table: Table, origin: str, settings: dict[str, Any], split: str, train: int
) -> dict[str, Any]:
    pair = table.pairs[0]
    methods = [_plain(one) for one in table.methods if (one if isinstance(one, str) else one.name) in METHODS[task]]
    own = {"dataset": name, "teacher": pair.teacher, "teacher_recipe": pair.teacher_recipe, "student": pair.student,
           "recipe": pair.recipe}  # fmt: skip
    caption = (
        f"{pair.student} learns from {pair.teacher}; the row none is {pair.student} alone. Models, recipes and the "
        f"weights of methods are those of the table {table.name} of the suite {origin}."
    )
    return {
        "description": f"What distillation adds to a small model on {name}, from {counted(train, 'image')}.",
        "task": task,
        "seeds": SEEDS,
        "split": split,
        "metrics": table.metrics,
        "main_metrics": table.main_metrics,
        "set": settings,
        "tables": [{"name": TABLE, "caption": caption, "pairs": [own], "methods": methods}],
        "panels": {"methods": [one for one in table.panel_methods if one in METHODS[task]], "images": 4},
    }


def _plain(method: str | Variant) -> Any:
    return method if isinstance(method, str) else method.model_dump(exclude_defaults=True)


def _seen(
    task: TaskName, described: Described, size: Size, params: Params, pair: Pair
) -> tuple[dict[str, Any], dict[str, Any]]:
    """How images are shown: settings of the recipes, and fields of the entry."""
    heights, widths = described.sizes.T
    height, width = round(float(np.median(heights))), round(float(np.median(widths)))
    recipes = dict.fromkeys((pair.teacher_recipe, pair.recipe))
    if task != "semantic":
        short = min(min(height, width), size.short_side)
        long = max(short, round(short * max(height, width) / min(height, width)))
        resize = {"short_sides": [short], "max_long_side": long}
        return {f"recipes.{recipe}.view.resize": resize for recipe in recipes}, {}
    settings: dict[str, Any] = {}
    entry: dict[str, Any] = {}
    factor = min(1.0, size.long_side / max(height, width))
    shown = [max(1, round(height * factor)), max(1, round(width * factor))]
    alike = np.ptp(widths / heights) <= ALIKE * width / height
    if alike and (factor < 1 or len(np.unique(described.sizes, axis=0)) > 1):
        entry["size"] = shown
    elif factor < 1:
        for recipe in recipes:
            settings[f"recipes.{recipe}.view.resize"] = {"short_sides": [min(shown)], "max_long_side": max(shown)}
    pixels = shown[0] * shown[1] if alike else int(np.max(heights * widths))
    if 4 * pixels * sum(described.entry["splits"].values()) <= MEMORY:
        entry["in_memory"] = True
    for recipe in recipes:
        usual = _crop_of(params.recipes[recipe])
        if (crop := _crop(usual, min(shown), size)) != usual:
            settings[f"recipes.{recipe}.view.crop"] = crop
    return settings, entry


def _crop_of(recipe: AnyRecipe) -> list[int]:
    assert isinstance(recipe, SegmentationRecipe)  # as the pattern's task is semantic
    return recipe.view.crop


def _crop(usual: list[int], short: int, size: Size) -> list[int]:
    """The usual crop, or on a GPU one of half the long side; no larger than images are."""
    wanted = size.long_side // 2 if size is GPU else max(usual)
    return [max(GRID, min(wanted, short) // GRID * GRID)] * 2


def require_task(task: str, tasks: Sequence[str], held: str, lacking: str) -> None:
    """Raise UserError unless the task is one that the folder's annotations are for.

    held: what the folder has, after `it has`; lacking: what to do for another task.
    """
    if task not in METHODS:
        raise UserError(f"--task {task} is no task{nearest(task, METHODS)}")
    if task not in tasks:
        raise UserError(f"--task {task}: the folder has {held}; write --task {tasks[-1]}, or {lacking}")
