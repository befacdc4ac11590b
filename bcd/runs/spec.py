"""What a training result is a function of (`Training`, `RunSpec`), and its JSON form, whose hash is a run's address.

The JSON form is older than the types of `bcd.config.schema` and stays as it is, so that addresses stay: recipes are
flat there, and what a task does not read is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import not_
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from bcd.config.schema.base import Strict, TaskName
from bcd.config.schema.data import DataUse
from bcd.config.schema.exports import Export
from bcd.config.schema.methods import WeightedTerm
from bcd.config.schema.models import AnyModel, DetectionModel, SegmentationModel
from bcd.config.schema.recipes import AnyRecipe, DetectionRecipe, Resize, SegmentationRecipe, Sliding

VERSION = 2
# Version of a spec -> what it calls the hash of its data: of the whole manifest once, of the training split today.
DATA_KEYS = {1: "manifest_sha256", 2: "data_sha256"}
RESULTS = Path("results")
# What the JSON of a recipe has at its top that belongs to the optimiser or to the view, in a typed recipe.
OPTIMIZER_PARTS = ("weight_decay", "momentum", "lr_factors", "no_decay")
CROP_PARTS = ("crop", "scale", "resize", "photometric", "cat_max_ratio")
WHOLE_PARTS = ("resize", "pad")
TASK: TypeAdapter[TaskName] = TypeAdapter(TaskName)
SGD_MOMENTUM = 0.9  # stands in the JSON of every optimiser


def digest(value: Any) -> str:
    """The first 16 hex digits of the sha256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class SegmentationEvaluation(Strict):
    """How a segmentor is evaluated."""

    split: str
    """The split."""
    sliding: Sliding | None = None
    """Windows; null for whole images."""
    resize: Resize | None = Field(default=None, exclude_if=not_)
    """Resizing of the images."""
    export: Export | None = Field(default=None, exclude_if=not_)
    """The form in which it runs; null for PyTorch."""


class DetectionEvaluation(Strict):
    """How a detector is evaluated."""

    split: str
    """The split."""
    resize: Resize
    """Resizing of the images, by the largest short side."""
    pad: int
    """A batch is padded to a multiple of it."""
    export: Export | None = Field(default=None, exclude_if=not_)
    """The form in which it runs; null for PyTorch."""


Evaluation = SegmentationEvaluation | DetectionEvaluation


@dataclass(frozen=True)
class Training:
    """Every parameter that can change a training result and no name: equal trainings are one.

    pretrained_sha256: of the file that `model.pretrained` names, if it names one.
    """

    task: TaskName
    data: DataUse
    model: AnyModel
    terms: tuple[WeightedTerm, ...]
    recipe: AnyRecipe
    seed: int
    pretrained_sha256: str | None = None

    @cached_property
    def hash(self) -> str:
        """Address of the training among others, while data and teacher are not known."""
        return digest(training_json(self))


@dataclass(frozen=True)
class TeacherSpec:
    """The teacher of a distilled run: its model and its weights."""

    model: AnyModel
    weights_sha256: str


@dataclass(frozen=True)
class RunSpec:
    """Everything that a training result is a function of.

    data_sha256  of what the split `train` consists of; in version 1 of the whole dataset's manifest
    teacher      None for a run without terms
    version      that of the JSON form: older ones are read and keep their addresses
    """

    training: Training
    data_sha256: str
    teacher: TeacherSpec | None = None
    version: int = VERSION

    @cached_property
    def hash(self) -> str:
        """The run's address in the store: 16 hex digits."""
        return digest(self.to_json())

    def folder(self, results: Path = RESULTS) -> Path:
        """The run's place in the store."""
        return results / "store" / self.hash

    def to_json(self) -> dict[str, Any]:
        """The content of spec.json."""
        teacher = self.teacher and {
            "model": model_json(self.teacher.model),
            "weights_sha256": self.teacher.weights_sha256,
        }
        return {
            "version": self.version,
            **training_json(self.training),
            DATA_KEYS[self.version]: self.data_sha256,
            "teacher": teacher,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunSpec:
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        version = content["version"]
        if version not in DATA_KEYS:
            raise ValueError(f"version {version} of a spec is not known")
        teacher = content["teacher"]
        found = teacher and TeacherSpec(_model(teacher["model"]), teacher["weights_sha256"])
        return cls(_training(content), content[DATA_KEYS[version]], found, version)


def training_json(training: Training) -> dict[str, Any]:
    """A training as JSON values."""
    content = {
        "task": training.task,
        "data": _data_json(training.data, training.task),
        "model": model_json(training.model),
        "terms": [term.model_dump() for term in training.terms],
        "recipe": _recipe_json(training.recipe),
        "seed": training.seed,
    }
    return content | ({"pretrained_sha256": training.pretrained_sha256} if training.pretrained_sha256 else {})


def model_json(model: AnyModel) -> dict[str, Any]:
    """A model as JSON values; a detector's have the dropout of segmentors, which it does not read."""
    shared = {"dropout": 0.1} if isinstance(model, DetectionModel) else {}
    return shared | model.model_dump(exclude_none=True)


def _training(content: Mapping[str, Any]) -> Training:
    terms = tuple(WeightedTerm.model_validate(term) for term in content["terms"])
    return Training(
        TASK.validate_python(content["task"]), DataUse.model_validate(content["data"]), _model(content["model"]), terms,
        _recipe(content["recipe"]), content["seed"], content.get("pretrained_sha256"),
    )  # fmt: skip


def _data_json(data: DataUse, task: str) -> dict[str, Any]:
    left_out = {"skip_annotations"} if task == "semantic" else set()
    return data.model_dump(exclude=left_out | (set() if data.images else {"images"}))


def _model(content: Mapping[str, Any]) -> AnyModel:
    if "detection" in content:
        return DetectionModel.model_validate({k: v for k, v in content.items() if k != "dropout"})
    return SegmentationModel.model_validate(content)


def _recipe_json(recipe: AnyRecipe) -> dict[str, Any]:
    content = recipe.model_dump(exclude={"runtime", "sliding", "optimizer", "view"})
    optimizer = {"momentum": SGD_MOMENTUM} | recipe.optimizer.model_dump()
    view = recipe.view.model_dump()
    flat = content | {"optimizer": optimizer.pop("name")} | optimizer | view
    # Left out when they say nothing: they are younger than the first runs.
    return {k: v for k, v in flat.items() if v or k not in ("lr_factors", "no_decay", "resize")}


def _recipe(content: Mapping[str, Any]) -> AnyRecipe:
    rest = dict(content)
    optimizer = {"name": rest.pop("optimizer")} | {k: rest.pop(k) for k in OPTIMIZER_PARTS if k in rest}
    if optimizer["name"] != "sgd":
        optimizer.pop("momentum", None)
    crop = "crop" in rest
    view = {k: rest.pop(k) for k in (CROP_PARTS if crop else WHOLE_PARTS) if k in rest}
    kind: Literal["segmentation", "detection"] = "segmentation" if crop else "detection"
    types: dict[str, type[SegmentationRecipe] | type[DetectionRecipe]] = {
        "segmentation": SegmentationRecipe,
        "detection": DetectionRecipe,
    }
    return types[kind].model_validate(rest | {"optimizer": optimizer, "view": view})
