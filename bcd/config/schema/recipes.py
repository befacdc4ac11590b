"""Recipes: how a model is trained and shown images."""

from __future__ import annotations

from operator import not_
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    field_validator,
    model_validator,
)

from bcd.config.ranges import Count, Fraction, Whole
from bcd.config.schema.base import Images, Pixels, Range, Side, Strict


class Sgd(Strict):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"]
    """The optimiser."""
    momentum: Fraction = 0.9
    """Share of the last update that is kept."""
    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty on the parameters."""
    lr_factors: dict[str, PositiveFloat] = {}
    """Word -> factor of the learning rate of the student's parameters whose name holds it; the longest word counts."""
    no_decay: list[str] = []
    """Words; the student's parameters whose name holds one are not decayed. As mmsegmentation's `custom_keys`."""


class AdamW(Strict):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"]
    """The optimiser."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled decay of the parameters."""
    lr_factors: dict[str, PositiveFloat] = {}
    """As of `Sgd`."""
    no_decay: list[str] = []
    """As of `Sgd`."""


Optimizer = Annotated[Sgd | AdamW, Field(discriminator="name")]


class Resize(Strict):
    """Images keep their shape: the short side becomes one of `short_sides`, the largest in evaluation."""

    short_sides: Annotated[list[Side], Len(1)]
    """Pixels of the short side."""
    max_long_side: Side
    """Pixels that the long side may not exceed; the image becomes smaller where it would."""


class Sliding(Strict):
    """Evaluation in overlapping windows."""

    crop: Pixels
    """Height and width of a window."""
    stride: Pixels
    """Steps from window to window."""

    @model_validator(mode="after")
    def _covers(self) -> Sliding:
        if any(step > side for step, side in zip(self.stride, self.crop, strict=True)):
            raise ValueError(f"stride: {self.stride} is longer than the crop {self.crop}, so pixels would be left out")
        return self


class CropView(Strict):
    """How segmentation sees a training image: a random crop of it."""

    crop: Pixels
    """Height and width of the crop."""
    scale: Range = [1.0, 1.0]
    """Range of the random factor on the image's size."""
    resize: Resize | None = None
    """Resizing before that, which evaluation does as well."""
    photometric: bool = False
    """Whether brightness, contrast, saturation and hue vary (mmsegmentation's PhotoMetricDistortion)."""
    cat_max_ratio: Fraction | None = None
    """A crop is drawn again while one class has a larger share of it; null for never."""

    @model_validator(mode="after")
    def _fits(self) -> CropView:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: {self.scale} falls; write the smaller factor first")
        if self.resize and len(self.resize.short_sides) > 1:
            raise ValueError("resize.short_sides: segmentation takes one, which `scale` varies")
        return self


class WholeView(Strict):
    """How a detector sees an image: resized whole."""

    resize: Resize
    """The sizes."""
    pad: Side = 32
    """A batch is padded to a multiple of it."""


class Ohem(Strict):
    """Online hard example mining: cross-entropy of the hard pixels only, see `bcd.tasks.cross_entropy`."""

    threshold: Fraction = 0.7
    """A pixel is hard while its true class has a lower probability."""
    min_kept: Count = 100_000
    """Pixels of an image that are taken at least, on average over a batch: the hardest ones."""


class Validation(Strict):
    """Evaluations while a model trains, for curves: no result depends on them, and nothing is chosen by them."""

    every: Count
    """Steps between two of them."""
    images: Count = 16
    """Images of the split `val`, evenly spaced."""


class Runtime(Strict):
    """What may change without changing a result: a job's size and resources, and how often it saves."""

    learners: Count | None = None
    """The most students that a job trains, for a GPU's memory; null for no limit."""
    checkpoint_every: Count = 500
    """Steps between two saves."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes that load data."""
    live_tracking: bool = False
    """Whether curves are sent to MLflow while a run lasts."""
    validation: Validation | None = None
    """Evaluations on a few validation images in between; null for none."""
    gpus: Annotated[int, Field(ge=0, le=1024)] = 0
    """GPUs of a job, one process each."""
    mem_mb: Count = 2000
    """Memory that a job asks for."""
    minutes: Count = 120
    """Time limit that a job asks for."""


class Recipe(Strict):
    """How a model is trained, whatever its task."""

    steps: Whole
    """Optimiser steps; 0 for a published model whose file `pretrained` names."""
    batch: Images
    """Images of a step, over all processes."""
    optimizer: Optimizer
    """The optimiser and what it does to which parameters."""
    lr: PositiveFloat
    """Learning rate at its highest."""
    min_lr: NonNegativeFloat = 0.0
    """Learning rate at the end of the poly decay."""
    power: NonNegativeFloat = 0.9
    """Exponent of the poly decay."""
    warmup: Whole = 0
    """Steps over which the learning rate rises."""
    decay_at: list[Count] = []
    """Steps at which the learning rate falls to a tenth."""
    clip: PositiveFloat | None = None
    """Largest norm of the gradient; null for no limit."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of forward passes (bf16 by autocast)."""
    flip: Fraction = 0.5
    """Share of images that are mirrored."""
    log_every: Count = 50
    """Steps between two lines of the history."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of a process; other numbers give other bits."""
    runtime: Runtime = Runtime()
    """What changes no result."""

    @model_validator(mode="after")
    def _falls(self) -> Recipe:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr: {self.min_lr} is above lr {self.lr}; the learning rate falls to it")
        return self

    @field_validator("decay_at")
    @classmethod
    def _ascending(cls, steps: list[int]) -> list[int]:
        if steps != sorted(set(steps)):
            raise ValueError(f"{steps}: write each step once, in ascending order")
        return steps


def _is_none(value: object) -> bool:
    return value == "none"


class SegmentationRecipe(Recipe):
    """How a segmentor is trained and evaluated."""

    view: CropView
    """How images are shown."""
    unlabelled_batch: Annotated[int, Field(ge=0, le=2**16)] = 0
    """Images of a step that carry no labels, beside `batch`."""
    aux_weight: NonNegativeFloat = 0.4
    """Weight of the auxiliary head's loss (PSPNet, Zhao et al. 2017, section 3.3)."""
    class_weights: Annotated[
        Literal["none", "sqrt_inverse", "enet"] | Annotated[list[PositiveFloat], Len(1)], Field(exclude_if=_is_none)
    ] = "none"
    """Weights of the classes in the cross-entropy: by a rule of `bcd.tasks.class_weights`, or one number a class."""
    ohem: Ohem | None = Field(default=None, exclude_if=not_)
    """Which pixels the cross-entropy is over; null for all."""
    sliding: Sliding | None = None
    """Windows of evaluation; null for whole images."""

    @model_validator(mode="after")
    def _leaves_out(self) -> SegmentationRecipe:
        height, width = self.view.crop
        if self.ohem and self.ohem.min_kept >= height * width:
            raise ValueError(
                f"ohem.min_kept: {self.ohem.min_kept} pixels are no fewer than the {height} x {width} of view.crop, so "
                "every pixel would be taken; choose fewer"
            )
        return self


class DetectionRecipe(Recipe):
    """How a detector is trained and evaluated."""

    view: WholeView
    """How images are shown."""


AnyRecipe = SegmentationRecipe | DetectionRecipe
