"""From the names in params/ to a run: what they mean, whether they fit together, and what `--set` changes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from bcd.config.architectures import POOLING_HEADS, SMALLEST_MIT_SIDE, SOURCES
from bcd.config.check import check
from bcd.config.exportable import require_exportable
from bcd.config.index_weights import INDEX, weights_file
from bcd.config.load import parse_method
from bcd.config.overrides import changed_terms, override
from bcd.config.schema.base import Strict, TaskName
from bcd.config.schema.data import VALIDATION, Dataset, DataUse
from bcd.config.schema.exports import Export
from bcd.config.schema.methods import TAPS, Method, WeightedTerm
from bcd.config.schema.models import AnyModel, DetectionModel, SegmentationModel
from bcd.config.schema.recipes import AnyRecipe, DetectionRecipe, SegmentationRecipe
from bcd.config.schema.suites import Params
from bcd.config.zoo import HUB, MEAN, STD, hub_file
from bcd.data.formats import require_format
from bcd.errors import UserError, nearest, pick
from bcd.files import sha256_file
from bcd.runs.run import Run
from bcd.runs.spec import DetectionEvaluation, Evaluation, SegmentationEvaluation, Training

Part = TypeVar("Part", bound=Strict)
PARTS = ("model", "recipe", "terms", "seed")  # of a run, what `--set` can change


@dataclass(frozen=True)
class Request:
    """A run by the names that params/ has for its parts."""

    key: str
    task: TaskName
    dataset: str
    model: str
    recipe: str
    method: str
    terms: Method
    seed: int
    repetition: int
    teacher: Run | None = None
    export: str | None = None


def resolved(params: Params, split: str, request: Request, where: str) -> Run:
    """The run that is asked for, evaluated on `split` of its dataset.

    Raises UserError, starting with `where`, for a name that is not defined or parts that do not fit the task.
    """
    dataset = pick(params.datasets, request.dataset, f"{where}.pairs")
    model = pick(params.models, request.model, f"{where}.pairs")
    recipe = pick(params.recipes, request.recipe, f"{where}.pairs")
    pick(dataset.splits, split, f"{where}: the suite's split in dataset {request.dataset}")
    _require_validation(recipe, dataset.splits, request.dataset, f"{where}: the recipe '{request.recipe}'")
    require_format(dataset.format, request.task, f"{where}: dataset {request.dataset}")
    if isinstance(recipe, SegmentationRecipe) and recipe.unlabelled_batch and dataset.labelled is None:
        raise UserError(
            f"{where}: the recipe '{request.recipe}' has unlabelled_batch {recipe.unlabelled_batch}, but every image "
            f"of '{request.dataset}' is labelled; set it to 0, or `labelled` of a variant of the dataset"
        )
    _require_fit(request.task, request.model, model, request.recipe, recipe, where)
    _require_class_weights(recipe, dataset.classes, f"{where}: the recipe '{request.recipe}'")
    _require_taps(request.terms.terms, model, f"{where}: the method '{request.method}'")
    _require_normalisation(model, dataset, f"{where}: the model '{request.model}' on {request.dataset}")
    export = _export(params, request, model, f"{where}.exports")
    return Run(
        key=request.key,
        training=Training(
            task=request.task,
            data=dataset.use(request.task),
            model=model.model_copy(update={"published": []}),
            terms=tuple(request.terms.terms),
            recipe=recipe.model_copy(update={"runtime": type(recipe.runtime)()}),
            seed=request.seed,
            pretrained_sha256=_weights_sha256(model),
        ),
        evaluation=_evaluation(split, recipe, export),
        dataset=request.dataset,
        files=dataset.files,
        in_memory=dataset.in_memory,
        runtime=recipe.runtime,
        model=request.model,
        method=request.method,
        repetition=request.repetition,
        teacher=request.teacher,
        export=request.export,
    )


def overridden(run: Run, settings: Mapping[str, Any]) -> Run:
    """`run` with `--set` overrides such as `recipe.lr` or `terms.cwd.weight`, checked like params files."""
    where = "--set"
    by_part: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for path, value in settings.items():
        part, _, field = path.partition(".")
        if part not in PARTS:
            raise UserError(f"{where}: {path}: '{part}' is not part of a run{nearest(part, PARTS)}")
        if bool(field) == (part == "seed"):
            example = {"seed": "seed=3", "terms": "terms.cwd.weight=3", "model": "model.channels=32"}
            raise UserError(f"{where}: {path}: write {example.get(part, 'recipe.lr=0.02')}")
        by_part[part][field] = value
    training = run.training
    model = _changed(training.model, by_part["model"], f"{where}: model")
    recipe = _changed(
        training.recipe.model_copy(update={"runtime": run.runtime}), by_part["recipe"], f"{where}: recipe"
    )
    terms = training.terms
    if by_part["terms"]:
        flat = changed_terms(terms, by_part["terms"], [], f"{where}: terms")
        terms = tuple(parse_method({"description": "", "terms": flat}, run.method, where).terms)
    seed = by_part["seed"].get("", training.seed)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise UserError(f"{where}: seed: expected an integer from 0 to {2**31 - 1}, got {seed!r}")
    _require_taps(terms, model, where)
    if "aux_weight" in by_part["recipe"] and isinstance(model, SegmentationModel) and model.aux_channels is None:
        raise UserError(f"{where}: recipe.aux_weight: the model '{run.model}' has no auxiliary head (aux_channels)")
    label = ",".join(f"{k}={v}" for k, v in sorted(settings.items()))
    changed = replace(
        training, model=model, terms=terms, seed=seed, pretrained_sha256=_weights_sha256(model),
        recipe=recipe.model_copy(update={"runtime": training.recipe.runtime}),
    )  # fmt: skip
    _require_fit(changed.task, run.model, model, "--set", recipe, where)
    _require_validation(recipe, training.data.splits, run.dataset, f"{where}: recipe")
    _require_class_weights(recipe, training.data.classes, f"{where}: recipe")
    _require_normalisation(model, training.data, f"{where}: the model '{run.model}' on {run.dataset}")
    evaluation = _evaluation(run.evaluation.split, recipe, run.evaluation.export)
    return replace(run, key=f"{run.key}?{label}", training=changed, evaluation=evaluation, runtime=recipe.runtime)


def _changed(part: Part, changes: dict[str, Any], where: str) -> Part:
    return check(type(part), override(part.model_dump(), changes, where), where) if changes else part


def _require_fit(
    task: TaskName, model_name: str, model: AnyModel, recipe_name: str, recipe: AnyRecipe, where: str
) -> None:
    """Raise UserError unless model and recipe are of the task, and of each other."""
    objects = task != "semantic"
    if isinstance(recipe, DetectionRecipe) != objects:
        wanted = "'view' with 'resize', without 'crop'," if objects else "'view' with 'crop'"
        raise UserError(f"{where}: the recipe '{recipe_name}' needs {wanted} for the task {task} (params/recipes.yaml)")
    if isinstance(model, DetectionModel) != objects:
        wanted = "a detector's head and 'detection'" if objects else "a head for segmentation"
        raise UserError(f"{where}: the model '{model_name}' needs {wanted} for the task {task} (params/models.yaml)")
    if task == "instance" and model.head != "mask_rcnn":
        raise UserError(f"{where}: the model '{model_name}' has no masks for the task instance; its head is mask_rcnn")
    if isinstance(recipe, SegmentationRecipe) and recipe.steps:
        _require_room(model_name, model, recipe_name, recipe, where)
    if not recipe.steps and model.pretrained in SOURCES:
        raise UserError(
            f"{where}: the recipe '{recipe_name}' has no steps, so the model '{model_name}' needs the weights of "
            "a whole model; name their file in `pretrained` (params/models.yaml)"
        )


def _require_validation(recipe: AnyRecipe, splits: Collection[str], dataset: str, where: str) -> None:
    """Raise UserError for evaluations in between without images for them."""
    if recipe.runtime.validation and VALIDATION not in splits:
        raise UserError(
            f"{where} has runtime.validation, and the dataset '{dataset}' has no split '{VALIDATION}'; leave it out"
        )


def _require_taps(terms: Sequence[WeightedTerm], model: AnyModel, where: str) -> None:
    """Raise UserError for a tap that no such model has, as far as the params tell."""
    levels = {tap for tap in TAPS if tap.startswith("p")}
    if isinstance(model, DetectionModel):
        chosen = model.detection.levels
        levels -= {f"p{level}" for level in range(chosen[0], chosen[1] + 1)} if chosen else levels
    for term in terms:
        if lacking := next((tap for tap in term.taps if tap in levels), None):
            raise UserError(
                f"{where}: the term '{term.term}' has the tap '{lacking}', which its models lack; correct its taps"
            )


def _require_room(model_name: str, model: AnyModel, recipe_name: str, recipe: SegmentationRecipe, where: str) -> None:
    """Raise UserError for crops and batches on which the model cannot train: BatchNorm needs two values a channel."""
    height, width = recipe.view.crop
    if model.backbone.startswith("mit_") and min(height, width) < SMALLEST_MIT_SIDE:
        raise UserError(
            f"{where}: the recipe '{recipe_name}' has crop {height} x {width}, but the model '{model_name}' needs "
            f"sides of {SMALLEST_MIT_SIDE} pixels or more (params/recipes.yaml)"
        )
    stride = model.output_stride
    cells = 1 if model.head in POOLING_HEADS else -(-height // stride) * -(-width // stride)
    if recipe.batch * cells < 2:
        raise UserError(
            f"{where}: the recipe '{recipe_name}' has batch {recipe.batch} at crop {height} x {width}, so BatchNorm of "
            f"the model '{model_name}' sees one value a channel; set batch to 2 or more (params/recipes.yaml)"
        )


def _require_class_weights(recipe: AnyRecipe, classes: Sequence[str], where: str) -> None:
    """Raise UserError for a list of class weights of another length than the dataset's classes."""
    weights = recipe.class_weights if isinstance(recipe, SegmentationRecipe) else "none"
    if isinstance(weights, list) and len(weights) != len(classes):
        raise UserError(
            f"{where}: class_weights has {len(weights)} numbers for {len(classes)} classes ({', '.join(classes)}); "
            "write one for each"
        )


def _require_normalisation(model: AnyModel, data: Dataset | DataUse, where: str) -> None:
    """Raise UserError unless images enter published weights as those of their own training did."""
    if model.pretrained == "index":
        weights = INDEX[model.backbone]
        mean, std = [weights.mean] * 3, [weights.std] * 3
    elif isinstance(model, DetectionModel) and model.of_zoo:
        mean, std = list(MEAN), list(STD)
    else:
        return
    if (data.mean, data.std) != (mean, std):
        raise UserError(
            f"{where}: its weights know images by mean {mean} and std {std}, but the dataset has mean {data.mean} and "
            f"std {data.std}; use a variant of the dataset with theirs (params/datasets.yaml)"
        )


def _export(params: Params, request: Request, model: AnyModel, where: str) -> Export | None:
    """A form of params/exports.yaml that the model has; None for PyTorch."""
    if request.export is None:
        return None
    export = pick(params.exports, request.export, where)
    require_exportable(model, dynamic=export.dynamic, where=f"{where}: the model '{request.model}'")
    return export


def _evaluation(split: str, recipe: AnyRecipe, export: Export | None) -> Evaluation:
    """How evaluation shows an image to the model, and in which form that runs."""
    if isinstance(recipe, SegmentationRecipe):
        view = recipe.view
        return SegmentationEvaluation(split=split, sliding=recipe.sliding, resize=view.resize, export=export)
    return DetectionEvaluation(split=split, resize=recipe.view.resize, pad=recipe.view.pad, export=export)


def _weights_sha256(model: AnyModel) -> str | None:
    """Hash of a file of initial weights, so that another file of that name makes another run."""
    if model.pretrained == "index":
        return INDEX[model.backbone].sha256
    if model.pretrained.startswith(HUB):
        return hub_file(model.pretrained).sha256
    path = Path(model.pretrained)
    if not path.is_file():
        return None
    stat = path.stat()
    return _file_sha256(path, stat.st_mtime_ns, stat.st_size)


def missing_weights(runs: Iterable[Run]) -> list[str]:
    """What is to be said of initial weights that runs start from and that are not here, one sentence each."""
    return list(dict.fromkeys(sentence for run in runs if (sentence := _missing(run))))


def _missing(run: Run) -> str:
    model = run.training.model
    if model.pretrained == "index":
        try:
            weights_file(model.backbone)
        except UserError as error:
            return f"{error} (the model '{run.model}')"
    elif (
        model.pretrained not in SOURCES
        and not model.pretrained.startswith(HUB)
        and not Path(model.pretrained).is_file()
    ):
        return (
            f"{model.pretrained} does not exist, from which the model '{run.model}' starts; put it there or correct "
            "`pretrained` (params/models.yaml)"
        )
    return ""


@lru_cache
def _file_sha256(path: Path, _changed: int, _size: int) -> str:
    """Read once for all runs that start from the file, until it changes."""
    return sha256_file(path)
