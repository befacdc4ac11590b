"""The types of everything in `params/`: names, units and allowed values. `bcd.config.load` reads files into them.

The sentence below a field says what it means. A value that does not fit is a `UserError` with file, field and remedy
(`bcd.config.check`). Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from operator import not_
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from bcd.config.architectures import BACKBONES, DETECTOR_HEADS, SEGMENTATION_HEADS
from bcd.errors import nearest

TAPS = ("stage1", "stage2", "stage3", "stage4", "p2", "p3", "p4", "p5", "p6", "p7", "neck", "logits")
BOX_METRICS = ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")
METRICS = {
    "semantic": ("miou", "macc", "aacc", "biou", "trimap1", "trimap3", "trimap5", "bf3", "conn", "frag"),
    "detection": BOX_METRICS,
    "instance": (*BOX_METRICS, *(f"{m}_mask" for m in BOX_METRICS), *(f"{m}_boundary" for m in BOX_METRICS)),
}
TaskName = Literal["semantic", "detection", "instance"]
# Keys of a suite that each of its tables inherits.
SHARED = ("task", "seeds", "metrics", "main_metrics", "panels")
MOST_CLASSES = 255  # a label map has 8 bits, and 255 means: ignore

# Names become folders, run keys and words of a shell command.
NAME = re.compile(r"(?!.*\.\.)[^\W_][\w.+-]*")


def require_name(name: object) -> str:
    """`name`, if it may name a suite, table, method, model, recipe or dataset; ValueError otherwise."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a name: it becomes a folder and a word of commands; start with a letter or digit "
            "and go on with letters, digits and - _ . +"
        )
    return name


def repeated(values: Iterable[str]) -> str | None:
    """The first value that stands twice, or None."""
    seen: set[str] = set()
    return next((value for value in values if value in seen or seen.add(value)), None)  # type: ignore[func-returns-value]


Name = Annotated[str, AfterValidator(require_name)]
Side = Annotated[int, Field(ge=1, le=2**14)]  # a longer one fits into no memory
Pixels = Annotated[list[Side], Len(2, 2)]
Range = Annotated[list[Annotated[float, Field(gt=0, le=100)]], Len(2, 2)]
Images = Annotated[int, Field(ge=1, le=2**16)]
Channels3 = Annotated[list[NonNegativeFloat], Len(3, 3)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Immutable, no unknown keys, no conversions: a number in quotes is an error. Floats are finite."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


# --- data ---------------------------------------------------------------------------------------------------------


class Archive(Strict):
    """One official download. Without a `url` the archive has to be in a mirror, or be put in place by hand."""

    archive: str
    """Its path in a mirror."""
    url: str | None
    """Where it is downloaded from; null for what stands behind a login."""
    bytes: PositiveInt | None = None
    """Its size; null when it was never published."""
    sha256: str | None = None
    """Its hash; null when it was never published."""
    md5: str | None = None
    """Its hash, where the authors publish no sha256."""
    keep: str | list[str] = ""
    """The folders or files of the archive that are unpacked; empty for all of it."""
    optional: bool = False
    """Whether a sample in a mirror may do without it."""


class Generator(Strict):
    """How a generated dataset is drawn."""

    seed: NonNegativeInt
    """Seed of the scenes."""
    size: Side
    """Height and width of an image in pixels."""


class Dataset(Strict):
    """A dataset, or a `variant_of` one: the same files with another size or fewer labels."""

    format: str
    """The label format: a module of `bcd/data/formats/`, by its name in FORMATS."""
    classes: Annotated[list[str], Len(1, MOST_CLASSES)]
    """Names of the classes, in the order of their ids 0, 1, ..."""
    splits: dict[Name, PositiveInt]
    """Split -> number of its images; one is called `train`."""
    licence: str
    """What may be done with the data; printed before anything is fetched."""
    source: str
    """Where the data comes from, for people."""
    archives: list[Archive] = []
    """What is downloaded and unpacked."""
    generator: Generator | None = None
    """How it is drawn, for generated data."""
    files: str = ""
    """Set by `variant_of`: the dataset whose folder below data/ this one uses."""
    things: list[str] = []
    """The classes whose objects are detected; empty for all."""
    skip_annotations: list[int] = []
    """Ids of official annotations that are known to be faulty."""
    size: Pixels | None = None
    """Height and width that images are resized to when they are read, for segmentation."""
    images: PositiveInt | None = None
    """Use only so many of each split, evenly spaced; null for all."""
    labelled: PositiveInt | None = None
    """How many training images carry labels; null for all."""
    in_memory: bool = False
    """Whether decoded images are kept between epochs."""
    mean: Channels3 = [123.675, 116.28, 103.53]
    """Subtracted from an image's channels, in 0..255."""
    std: Channels3 = [58.395, 57.12, 57.375]
    """What the channels are divided by afterwards."""

    @model_validator(mode="after")
    def _fits(self) -> Dataset:
        for field in ("classes", "things"):
            if twice := repeated(getattr(self, field)):
                raise ValueError(f"{field} has '{twice}' twice; each class has a name of its own")
        if unknown := next((thing for thing in self.things if thing not in self.classes), None):
            raise ValueError(f"things has '{unknown}', which is no class{nearest(unknown, self.classes)}")
        if "train" not in self.splits:
            raise ValueError("a split named 'train' is required among splits")
        training = min(self.images or self.splits["train"], self.splits["train"])
        if self.labelled and self.labelled > training:
            raise ValueError(f"labelled is {self.labelled}, more than the {training} training images")
        if 0 in self.std:
            raise ValueError("std has a 0, by which channels would be divided")
        return self


class DataUse(Strict):
    """The part of a dataset that a run's result depends on, apart from its files."""

    format: str
    """As of `Dataset`."""
    classes: list[str]
    """For detectors the things, else all classes."""
    splits: dict[str, int]
    """As of `Dataset`."""
    size: Pixels | None = None
    """As of `Dataset`."""
    images: PositiveInt | None = None
    """As of `Dataset`."""
    labelled: PositiveInt | None = None
    """As of `Dataset`."""
    skip_annotations: list[int] = []
    """As of `Dataset`; for detectors only."""
    mean: Channels3
    """As of `Dataset`."""
    std: Channels3
    """As of `Dataset`."""


# --- models -------------------------------------------------------------------------------------------------------


class Model(Strict):
    """What segmentors and detectors share: a backbone and where its weights come from."""

    backbone: str
    """`light`, a small residual net, or a name of `bcd.config.architectures.BACKBONES`."""
    channels: PositiveInt
    """Width of the decode head, or of a detector's pyramid."""
    output_stride: Literal[8, 16, 32] = 8
    """Stride of the backbone's last stage; what a backbone offers stands in `BACKBONES`."""
    widths: Annotated[list[PositiveInt], Len(4, 4)] | None = None
    """Channels of the four stages, of `light` only."""
    depths: Annotated[list[PositiveInt], Len(4, 4)] | None = None
    """Residual blocks of the four stages, of `light` only."""
    pretrained: str = "none"
    """`none`, `timm`, or the path of a .safetensors or .pth file; a run's record says what was used."""

    @model_validator(mode="after")
    def _backbone_fits(self) -> Model:
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone: '{self.backbone}' is not known{nearest(self.backbone, BACKBONES)}")
        if self.output_stride not in BACKBONES[self.backbone]:
            offered = " or ".join(map(str, BACKBONES[self.backbone]))
            raise ValueError(f"output_stride: '{self.backbone}' has {offered}, not {self.output_stride}")
        for field in ("widths", "depths"):
            if self.backbone == "light" and getattr(self, field) is None:
                raise ValueError(f"{field}: 'light' needs four positive integers, one per stage")
            if self.backbone != "light" and getattr(self, field) is not None:
                raise ValueError(f"{field}: only 'light' has them; remove them for '{self.backbone}'")
        return self


class SegmentationModel(Model):
    """A model for semantic segmentation."""

    head: Literal[SEGMENTATION_HEADS]  # type: ignore[valid-type]
    """The decode head."""
    aux_channels: PositiveInt | None = None
    """Width of the auxiliary head, which only training has; null for none."""
    dropout: Fraction = 0.1
    """Share of channels that are dropped before a classifier."""


class Detection(Strict):
    """What a detector has beside its backbone; the defaults are those of the engine's published models."""

    engine: Literal["torchvision", "detectron2"] = "torchvision"
    """The library that implements heads and losses."""
    levels: Pixels | None = None
    """The finest and the coarsest level of the pyramid; level l has stride 2^l."""
    anchor_scale: PositiveFloat | None = None
    """Side of a level's smallest anchor, in strides."""
    convs: PositiveInt | None = None
    """Convolutions of a dense head's towers, and of a mask head."""
    fc_channels: PositiveInt | None = None
    """Width of an R-CNN's box head."""
    max_detections: PositiveInt = 100
    """How many are kept of an image; COCO's metrics look at 100."""


class DetectionModel(Model):
    """A detector: a backbone, a feature pyramid and the heads of an engine."""

    head: Literal[DETECTOR_HEADS]  # type: ignore[valid-type]
    """The kind of detector."""
    detection: Detection
    """The pyramid and the heads."""

    @model_validator(mode="after")
    def _head_fits(self) -> DetectionModel:
        for field, without in (("fc_channels", ("retinanet", "fcos")), ("convs", ("faster_rcnn",))):
            if self.head in without and getattr(self.detection, field) is not None:
                raise ValueError(f"detection.{field}: means nothing to '{self.head}'; remove it")
        return self


AnyModel = SegmentationModel | DetectionModel

# --- methods ------------------------------------------------------------------------------------------------------


class WeightedTerm(Strict):
    """One term of a method; in YAML, keys that are not listed here are options of its loss."""

    term: str
    """A key of `bcd.losses.TERMS`."""
    taps: list[Literal[TAPS]] = []  # type: ignore[valid-type]
    """Where it compares student and teacher; empty for the term's default taps."""
    weight: NonNegativeFloat = 1.0
    """Factor of the loss, which is the mean over the taps unless it is a joint one."""
    schedule: Literal["constant", "linear", "warmup"] = "constant"
    """How the weight changes over training; linear falls to 0."""
    warmup: NonNegativeInt = 0
    """Steps over which the weight rises, under any schedule."""
    target: Literal["teacher", "label"] = "teacher"
    """`label` is a control: labels in the teacher's place."""
    options: dict[str, Any] = {}
    """Keyword arguments of the loss, checked against its signature (`bcd.config.terms`)."""

    @model_validator(mode="after")
    def _fits(self) -> WeightedTerm:
        if self.schedule == "warmup" and self.warmup < 1:
            raise ValueError("schedule warmup needs warmup: the number of steps over which the weight rises")
        if self.target == "label" and self.taps not in ([], ["logits"]):
            raise ValueError("target: label needs taps: [logits]; labels have no features")
        return self


class Method(Strict):
    """Terms that are added to the student's task loss."""

    description: str
    """What it is and where its constants come from."""
    terms: list[WeightedTerm]
    """The terms in order."""


# --- recipes ------------------------------------------------------------------------------------------------------


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


class Runtime(Strict):
    """What may change without changing a result: a job's size and resources, and how often it saves."""

    learners: PositiveInt | None = None
    """The most students that a job trains, for a GPU's memory; null for no limit."""
    checkpoint_every: PositiveInt = 500
    """Steps between two saves."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes that load data."""
    live_tracking: bool = False
    """Whether curves are sent to MLflow while a run lasts."""
    gpus: NonNegativeInt = 0
    """GPUs of a job, one process each."""
    mem_mb: PositiveInt = 2000
    """Memory that a job asks for."""
    minutes: PositiveInt = 120
    """Time limit that a job asks for."""


class Recipe(Strict):
    """How a model is trained, whatever its task."""

    steps: NonNegativeInt
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
    warmup: NonNegativeInt = 0
    """Steps over which the learning rate rises."""
    decay_at: list[PositiveInt] = []
    """Steps at which the learning rate falls to a tenth."""
    clip: PositiveFloat | None = None
    """Largest norm of the gradient; null for no limit."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of forward passes (bf16 by autocast)."""
    flip: Fraction = 0.5
    """Share of images that are mirrored."""
    log_every: PositiveInt = 50
    """Steps between two lines of the history."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of a process; other numbers give other bits."""
    runtime: Runtime = Runtime()
    """What changes no result."""

    @field_validator("decay_at")
    @classmethod
    def _ascending(cls, steps: list[int]) -> list[int]:
        if steps != sorted(set(steps)):
            raise ValueError(f"{steps}: write each step once, in ascending order")
        return steps


class SegmentationRecipe(Recipe):
    """How a segmentor is trained and evaluated."""

    view: CropView
    """How images are shown."""
    unlabelled_batch: Annotated[int, Field(ge=0, le=2**16)] = 0
    """Images of a step that carry no labels, beside `batch`."""
    aux_weight: NonNegativeFloat = 0.4
    """Weight of the auxiliary head's loss (PSPNet, Zhao et al. 2017, section 3.3)."""
    sliding: Sliding | None = None
    """Windows of evaluation; null for whole images."""


class DetectionRecipe(Recipe):
    """How a detector is trained and evaluated."""

    view: WholeView
    """How images are shown."""


AnyRecipe = SegmentationRecipe | DetectionRecipe

# --- suites -------------------------------------------------------------------------------------------------------


class Pair(Strict):
    """A teacher and its student on a dataset."""

    dataset: str
    """The student's dataset."""
    teacher: str
    """The teacher's model."""
    teacher_recipe: str
    """How the teacher is trained."""
    teacher_dataset: str | None = None
    """The teacher's dataset; null for the student's."""
    student: str
    """The student's model."""
    recipe: str
    """How the student is trained."""


class Variant(Strict):
    """A row of a table that is a changed method."""

    name: Name
    """What the row is called."""
    base: str
    """The method that is changed."""
    set: dict[str, Any] = {}
    """`<term>.<field>` -> value, such as `cwd.weight: 10.0`; the second of two equal terms is `cwd/1`."""
    add: list[dict[str, Any]] = []
    """Terms that are added, written as in params/methods.yaml."""
    terms: list[dict[str, Any]] | None = None
    """All terms, in place of the method's; null leaves these."""


class Panels(Strict):
    """Columns and rows of a table's picture; evaluation keeps the predictions of eight images."""

    methods: list[str] | None = None
    """Rows of the table that are shown; null for none and bcd, as far as the table has them."""
    images: Annotated[int, Field(ge=1, le=8)] = 4
    """How many images."""


class Published(Strict):
    """A number of others for one cell of a table: the one line of `params/published/<csv>` with the columns `where`.

    The line's metric is that of the entry (`bcd.report.published.METRICS`), so `where` leaves it out.
    """

    method: str
    """A row of the table, or `teacher`."""
    pair: NonNegativeInt | str | None = None
    """The pair's index or its student; null in a table of one pair."""
    metric: str
    """A metric of the table's task."""
    csv: str
    """File in params/published/."""
    where: dict[str, str]
    """Column -> value of the line."""
    note: str = ""
    """What else a reader must know, such as another teacher."""


class Table(Strict):
    """One table. What stands at the top of a suite's file (`SHARED`) holds for each of its tables that does not say."""

    name: Name
    """The table's name, which its files have."""
    caption: str
    """What it shows, in a sentence."""
    task: TaskName
    """The task of all its runs."""
    seeds: PositiveInt
    """Repetitions of each student."""
    pairs: Annotated[list[Pair], Len(1)]
    """Blocks of rows."""
    methods: Annotated[list[str | Variant], Len(1)]
    """Rows of each block, `none` among them."""
    baseline: str = "none"
    """The row which every other is compared with."""
    metrics: Annotated[list[str], Len(1)]
    """Columns."""
    main_metrics: Annotated[list[str], Len(1)]
    """The metrics whose differences are tested."""
    published: list[Published] = []
    """Numbers of others beside the table's own."""
    panels: Panels = Panels()
    """The table's picture."""

    @property
    def method_names(self) -> list[str]:
        """The rows of a block without the teacher's."""
        return [entry if isinstance(entry, str) else entry.name for entry in self.methods]

    @model_validator(mode="after")
    def _metrics_fit(self) -> Table:
        known = METRICS[self.task]
        for metric in (*self.metrics, *self.main_metrics):
            if metric not in known:
                raise ValueError(f"'{metric}' is no metric of the task '{self.task}'; it has {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _rows_fit(self) -> Table:
        names = self.method_names
        if twice := repeated(names):
            raise ValueError(f"the method '{twice}' stands twice; remove one or give a changed one another name")
        for needed in ("none", self.baseline):
            if needed not in names:
                raise ValueError(f"a table needs the method '{needed}', which its other rows are compared with")
        for shown in self.panels.methods or []:
            if shown not in names:
                raise ValueError(
                    f"panels.methods: '{shown}' is no method of table '{self.name}'{nearest(shown, names)}"
                )
        return self

    @property
    def panel_methods(self) -> list[str]:
        """The rows that the table's picture shows."""
        chosen = ["none", "bcd"] if self.panels.methods is None else self.panels.methods
        return [name for name in chosen if name in self.method_names]


class Suite(Strict):
    """Tables to build, each with the runs that it needs."""

    description: str
    """What the suite asks, for captions and MLflow."""
    first_seed: NonNegativeInt = 0
    """The first repetition; a suite that chooses weights must not train with the seeds that others report."""
    split: Literal["train", "val", "test"] = "test"
    """The split of evaluation."""
    of: list[str] = Field(default=[], exclude_if=not_)
    """Suites whose tables are taken over, with everything that these say but for `first_seed` and `split`."""
    set: dict[str, Any] = Field(default={}, exclude_if=not_)
    """`<part>.<name>.<field>` -> value, such as `recipes.*.steps`: replaced for this suite only."""
    tables: list[Table] = []
    """The tables."""
    name: Name = ""
    """The file's name."""

    @model_validator(mode="after")
    def _has_tables(self) -> Suite:
        if not self.tables and not self.of:
            raise ValueError("a suite needs tables of its own, or other suites to take them from (`of`)")
        return self


class Params(Strict):
    """Everything in `params/` but the suites, keyed by name."""

    datasets: dict[str, Dataset]
    """params/datasets.yaml."""
    models: dict[str, AnyModel]
    """params/models.yaml."""
    methods: dict[str, Method]
    """params/methods.yaml."""
    recipes: dict[str, AnyRecipe]
    """params/recipes.yaml."""
