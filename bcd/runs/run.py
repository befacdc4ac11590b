"""What a run is: its resolved configuration, its spec and its address.

A *run* is one trained and evaluated model. Its configuration holds every parameter that can change a result and no
name, so two methods that resolve to the same terms share one training. Its *spec* adds what only exists once the
DAG is under way (the data's and the teacher's hashes); the spec's hash is its address in `results/store/`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from bcd.config.check import check
from bcd.config.load import parse_method
from bcd.config.overrides import override
from bcd.config.schema import Dataset, Method, Model, Params, Recipe
from bcd.errors import UserError, nearest, pick
from bcd.files import sha256_file

SPEC_VERSION = 1
# How a dataset's files are used, as opposed to where they come from (that is the manifest's business).
DATA_FIELDS = ("format", "classes", "splits", "size", "labelled", "mean", "std")
# What a recipe and a model must say for a task, and what of a recipe another task reads.
VIEW_FIELD = {"semantic": "crop", "detection": "resize", "instance": "resize"}
MODEL_FIELD = {"detection": "detection", "instance": "detection"}
_SEMANTIC_VIEW = {"crop", "scale", "photometric", "cat_max_ratio", "aux_weight", "unlabelled_batch"}
OTHER_TASKS_FIELDS = {"semantic": {"pad"}, "detection": _SEMANTIC_VIEW, "instance": _SEMANTIC_VIEW}


@dataclass(frozen=True)
class Run:
    """One trained and evaluated model: where it stands in the suite, and what it is."""

    key: str  # <task>/<dataset>/<student>-from-<teacher>/<method>/s<repetition>
    config: dict[str, Any]  # task, data, model, terms, recipe, seed
    evaluation: dict[str, Any]  # split and how images are shown to the model
    dataset: str  # name in params/datasets.yaml
    files: str  # folder below data/
    runtime: dict[str, Any]
    model_name: str
    method: str
    repetition: int
    teacher: Run | None = None

    @property
    def group(self) -> str:
        """The key without its method: runs that share data, teacher and seed are trained together."""
        task, dataset, pair, _, repetition = self.key.split("/")
        return f"{task}/{dataset}/{pair}/{repetition}"

    @property
    def fingerprint(self) -> str:
        """Hash of configuration and evaluation, and of the teacher's: known before any data exists."""
        teacher = self.teacher.fingerprint if self.config["terms"] and self.teacher else None
        return digest({"config": self.config, "evaluation": self.evaluation, "teacher": teacher})


@dataclass(frozen=True)
class Request:
    """A run by the names that params/ has for its parts."""

    key: str
    task: str
    dataset: str
    model: str
    recipe: str
    method: str
    terms: Method
    seed: int
    repetition: int
    teacher: Run | None = None


def digest(value: Any) -> str:
    """The first 16 hex digits of the sha256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def resolved(params: Params, split: str, request: Request, where: str) -> Run:
    """The run that is asked for, evaluated on `split` of its dataset.

    Raises UserError, starting with `where`, for a name that is not defined or parts that do not fit the task.
    """
    task = request.task
    dataset: Dataset = pick(params.datasets, request.dataset, f"{where}.pairs")
    model: Model = pick(params.models, request.model, f"{where}.pairs")
    recipe: Recipe = pick(params.recipes, request.recipe, f"{where}.pairs")
    pick(dataset.splits, split, f"{where}: the suite's split in dataset {request.dataset}")
    for part, values, field in (("recipe", recipe, VIEW_FIELD[task]), ("model", model, MODEL_FIELD.get(task))):
        if field and getattr(values, field) is None:
            name = getattr(request, part)
            raise UserError(f"{where}: the {part} '{name}' needs '{field}' for the task {task} (params/{part}s.yaml)")
    if task == "semantic" and recipe.resize and len(recipe.resize.short_sides) > 1:
        raise UserError(
            f"{where}: the recipe '{request.recipe}' has several resize.short_sides; segmentation takes one, which "
            "`scale` varies (params/recipes.yaml)"
        )
    if not recipe.steps and model.pretrained in ("none", "timm"):
        raise UserError(
            f"{where}: the recipe '{request.recipe}' has no steps, so the model '{request.model}' needs the weights of "
            "a whole model; name their file in `pretrained` (params/models.yaml)"
        )
    return Run(
        key=request.key,
        config={
            "task": task,
            "data": _data_part(dataset, task),
            "model": model.model_dump(exclude_none=True),
            "terms": [term.model_dump() for term in request.terms.terms],
            "recipe": _training_part(recipe, task),
            "seed": request.seed,
        }
        | _weights_part(model),
        evaluation={"split": split} | _shown(recipe, task),
        dataset=request.dataset,
        files=dataset.files,
        runtime=recipe.runtime.model_dump() | {"in_memory": dataset.in_memory, "threads": recipe.threads},
        model_name=request.model,
        method=request.method,
        repetition=request.repetition,
        teacher=request.teacher,
    )


def overridden(run: Run, settings: dict[str, Any]) -> Run:
    """`run` with `--set` overrides such as `recipe.lr=0.02` or `terms.0.weight=3`, checked like params files."""
    where = "--set"
    plain = {k: run.config[k] for k in ("model", "recipe", "terms", "seed")}
    split = {"split": run.evaluation["split"]}
    # Evaluation has what the recipe says of it, some of which training does not look at.
    plain["recipe"] = plain["recipe"] | {k: v for k, v in run.evaluation.items() if k not in split}
    for path in settings:
        head = path.split(".")[0]
        if head not in plain:
            raise UserError(f"{where}: {path}: '{head}' is not part of a run{nearest(head, plain)}")
    changed = override(plain, settings, where)
    model = check(Model, changed["model"], f"{where}: model")
    recipe = check(Recipe, changed["recipe"], f"{where}: recipe")
    changed |= {"model": model.model_dump(exclude_none=True), "recipe": _training_part(recipe, run.config["task"])}
    changed |= _weights_part(model)
    if not isinstance(changed["seed"], int):
        raise UserError(f"{where}: seed: expected an integer, got {changed['seed']!r}")
    flat = [{k: v for k, v in t.items() if k != "options"} | t["options"] for t in changed["terms"]]
    method = parse_method({"description": "", "terms": flat}, run.method, where)
    changed["terms"] = [t.model_dump() for t in method.terms]
    label = ",".join(f"{k}={v}" for k, v in sorted(settings.items()))
    kept = {key: value for key, value in run.config.items() if key != "pretrained_sha256"}
    evaluation = split | _shown(recipe, run.config["task"])
    return replace(run, key=f"{run.key}?{label}", config=kept | changed, evaluation=evaluation)


def spec_of(run: Run, *, manifest_sha256: str, teacher_weights_sha256: str | None) -> dict[str, Any]:
    """Everything that a training result is a function of. The teacher counts only where a term looks at it."""
    teacher = None
    if run.config["terms"]:
        if run.teacher is None or teacher_weights_sha256 is None:
            raise ValueError(f"{run.key} has distillation terms and needs its teacher's weights hash")
        teacher = {"model": run.teacher.config["model"], "weights_sha256": teacher_weights_sha256}
    return {"version": SPEC_VERSION, **run.config, "manifest_sha256": manifest_sha256, "teacher": teacher}


def run_file(suite: str, run: Run, results: Path = Path("results")) -> Path:
    """Where the run's small JSON lies; overridden runs (`--set`) stand apart from the DAG's edges."""
    if "?" in run.key:
        base, label = run.key.split("?", 1)
        return results / suite / "overrides" / f"{base}-{digest(label)}.json"
    return results / suite / ("runs" if run.teacher else "teachers") / f"{run.key}.json"


def _weights_part(model: Model) -> dict[str, Any]:
    """The content of a local file of initial weights, so that another file of that name makes another run."""
    path = Path(model.pretrained)
    if not path.is_file():
        return {}
    stat = path.stat()
    return {"pretrained_sha256": _file_sha256(path, stat.st_mtime_ns, stat.st_size)}


@lru_cache
def _file_sha256(path: Path, _changed: int, _size: int) -> str:
    """Read once for all runs that start from the file, until it changes."""
    return sha256_file(path)


def _data_part(dataset: Dataset, task: str) -> dict[str, Any]:
    """How the dataset is used; a detector's classes are the things."""
    part = dataset.model_dump(include=set(DATA_FIELDS))
    if dataset.images:
        part["images"] = dataset.images
    if task == "semantic":
        return part
    return part | {"classes": dataset.things or dataset.classes, "skip_annotations": dataset.skip_annotations}


def _training_part(recipe: Recipe, task: str) -> dict[str, Any]:
    return recipe.model_dump(exclude={"runtime", "sliding"} | OTHER_TASKS_FIELDS[task])


def _shown(recipe: Recipe, task: str) -> dict[str, Any]:
    """How evaluation shows an image to the model."""
    if task == "semantic":
        return {"sliding": recipe.sliding and recipe.sliding.model_dump()} | recipe.model_dump(include={"resize"})
    return recipe.model_dump(include={"resize", "pad"})
