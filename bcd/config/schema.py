"""The types of everything in `params/`: names, units and allowed values. `bcd.config.load` reads files into them."""

from __future__ import annotations

from operator import not_
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

TAPS = ("stage1", "stage2", "stage3", "stage4", "p2", "p3", "p4", "p5", "p6", "p7", "neck", "logits")
# What a loss may ask for beside the two maps: keyword-only names that are filled in, never options of a method.
FACTS = ("valid", "label", "image_label", "boxes", "classes")
BOX_METRICS = ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")
METRICS = {
    "semantic": ("miou", "macc", "aacc", "biou", "trimap1", "trimap3", "trimap5", "bf3", "conn", "frag"),
    "detection": BOX_METRICS,
    "instance": (*BOX_METRICS, *(f"{m}_mask" for m in BOX_METRICS), *(f"{m}_boundary" for m in BOX_METRICS)),
}
TASKS = tuple(METRICS)
# Keys of a suite that each of its tables inherits.
SHARED = ("task", "seeds", "metrics", "main_metrics", "panels")

Pixels = Annotated[list[PositiveInt], Len(2, 2)]
Range = Annotated[list[PositiveFloat], Len(2, 2)]
Channels3 = Annotated[list[NonNegativeFloat], Len(3, 3)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Archive(_Strict):
    """One official download: `archive` is its path in a mirror; `bytes` and `sha256` are null when never published.

    Without a `url` the archive has to be in a mirror.
    """

    archive: str
    url: str | None
    bytes: PositiveInt | None = None
    sha256: str | None = None
    md5: str | None = None  # where the authors publish no sha256
    keep: str | list[str] = ""  # the folders or files of the archive that are unpacked; empty = all of it
    optional: bool = False  # whether a sample in a mirror may do without it


class Generator(_Strict):
    seed: NonNegativeInt
    size: PositiveInt


class Dataset(_Strict):
    """A dataset, or a `variant_of` one: the same files with another size or fewer labels."""

    format: Literal[
        "scenes", "camvid", "coco", "voc", "cityscapes", "ade20k", "cocostuff10k", "cocostuff164k", "pascal_context"
    ]
    classes: Annotated[list[str], Len(2)]
    splits: dict[str, PositiveInt]
    licence: str
    source: str
    archives: list[Archive] = []
    generator: Generator | None = None
    files: str = ""  # folder below data/: the name of the dataset that this one is a variant of
    things: list[str] = []  # the classes whose objects are detected; empty = all
    skip_annotations: list[int] = []  # ids of official annotations that are known to be faulty
    size: Pixels | None = None
    images: PositiveInt | None = None  # use only so many of each split, evenly spaced; None = all
    labelled: PositiveInt | None = None
    in_memory: bool = False
    mean: Channels3 = [123.675, 116.28, 103.53]
    std: Channels3 = [58.395, 57.12, 57.375]


class Detection(_Strict):
    """What a detector has beside its backbone; the defaults are those of the engine's published models.

    `levels` are the finest and the coarsest level of the pyramid, level l having stride 2^l. `anchor_scale` is the side
    of a level's smallest anchor in strides.
    """

    engine: Literal["torchvision", "detectron2"] = "torchvision"
    levels: Pixels | None = None
    anchor_scale: PositiveFloat | None = None
    convs: PositiveInt | None = None  # convolutions of a dense head's towers, and of a mask head
    fc_channels: PositiveInt | None = None  # of an R-CNN's box head
    max_detections: PositiveInt = 100  # kept of an image; COCO's metrics look at 100


class Model(_Strict):
    backbone: str
    head: str
    channels: PositiveInt
    aux_channels: PositiveInt | None = None
    output_stride: Literal[8, 16, 32] = 8
    widths: list[PositiveInt] | None = None
    depths: list[PositiveInt] | None = None
    pretrained: str = "none"
    dropout: Fraction = 0.1
    detection: Detection | None = None  # of detectors only


class WeightedTerm(_Strict):
    """One line of a method; keys that are not listed here are options of the loss function."""

    term: str
    taps: Annotated[list[Literal[TAPS]], Len(1)]
    weight: NonNegativeFloat
    schedule: Literal["constant", "linear", "warmup"] = "constant"
    warmup: NonNegativeInt = 0
    target: Literal["teacher", "label"] = "teacher"  # label: a control, what the term gives without any teacher
    options: dict[str, Any] = {}


class Method(_Strict):
    description: str
    terms: list[WeightedTerm]


class Sliding(_Strict):
    crop: Pixels
    stride: Pixels


class Resize(_Strict):
    """Images keep their shape: the short side becomes one of `short_sides` (the largest, in evaluation), unless the
    long side would then exceed `max_long_side`."""

    short_sides: Annotated[list[PositiveInt], Len(1)]
    max_long_side: PositiveInt


class Runtime(_Strict):
    """What may change without changing a result: a job's size and resources, and how often it saves."""

    learners: PositiveInt | None = None  # the most students that a job trains, for a GPU's memory; None = no limit
    checkpoint_every: PositiveInt = 500
    workers: NonNegativeInt = 0
    live_tracking: bool = False
    gpus: NonNegativeInt = 0
    mem_mb: PositiveInt = 2000
    minutes: PositiveInt = 120


class Recipe(_Strict):
    """How a model is trained and shown images.

    `lr_factors` and `no_decay` are about the student's parameters whose full name (`backbone.stages_0.norm.weight`)
    holds a word: their learning rate is multiplied (of several words that fit, the longest counts), or they are not
    decayed. The same words as mmsegmentation's `custom_keys`.
    """

    steps: NonNegativeInt  # 0: nothing is trained, for a published model whose file `pretrained` names
    batch: PositiveInt
    unlabelled_batch: NonNegativeInt = 0
    optimizer: Literal["sgd", "adamw"]
    lr: PositiveFloat
    momentum: Fraction = 0.9
    weight_decay: NonNegativeFloat = 0.0
    power: NonNegativeFloat = 0.9
    min_lr: NonNegativeFloat = 0.0
    warmup: NonNegativeInt = 0
    decay_at: list[PositiveInt] = []  # steps at which the learning rate falls to a tenth
    clip: PositiveFloat | None = None
    # Left out of a dump when they say nothing, so that the addresses of runs from before them stay valid.
    lr_factors: dict[str, PositiveFloat] = Field(default={}, exclude_if=not_)
    no_decay: list[str] = Field(default=[], exclude_if=not_)
    precision: Literal["float32", "bf16"] = "float32"
    aux_weight: NonNegativeFloat = 0.4
    crop: Pixels | None = None  # semantic segmentation; detectors see whole images
    scale: Range = [1.0, 1.0]
    resize: Resize | None = Field(default=None, exclude_if=not_)
    pad: PositiveInt = 32  # a batch of detection is padded to a multiple of it
    flip: Fraction = 0.5
    photometric: bool = False
    cat_max_ratio: Fraction | None = None
    sliding: Sliding | None = None
    log_every: PositiveInt = 50
    threads: PositiveInt = 1
    runtime: Runtime = Runtime()


class Pair(_Strict):
    dataset: str
    teacher: str
    teacher_recipe: str
    teacher_dataset: str | None = None
    student: str
    recipe: str


class Variant(_Strict):
    """A row of a table that is a changed method: `set` maps a path such as `terms.0.weight` to its value."""

    name: str
    base: str
    set: dict[str, Any]


class Panels(_Strict):
    """Columns and rows of a table's picture; evaluation keeps the predictions of eight images."""

    methods: list[str] = ["none", "bcd"]
    images: Annotated[int, Field(ge=1, le=8)] = 4


class Published(_Strict):
    """A number of others for one cell of a table: the one line of `params/published/<csv>` with the columns `where`.

    The line's metric is that of the entry (`bcd.report.published.METRICS`), so `where` leaves it out.
    """

    method: str  # a row of the table, or `teacher`
    pair: NonNegativeInt | str | None = None  # its index or its student; None in a table of one pair
    metric: str
    csv: str
    where: dict[str, str]
    note: str = ""  # what else a reader must know, such as another teacher


class Table(_Strict):
    """One table. What stands at the top of a suite's file (`SHARED`) holds for each of its tables that does not say."""

    name: str
    caption: str
    task: Literal[TASKS]
    seeds: PositiveInt
    pairs: Annotated[list[Pair], Len(1)]
    methods: Annotated[list[str | Variant], Len(1)]
    baseline: str = "none"  # the row which every other is compared with
    metrics: Annotated[list[str], Len(1)]
    main_metrics: Annotated[list[str], Len(1)]
    published: list[Published] = []
    panels: Panels = Panels()

    @model_validator(mode="after")
    def _metrics_fit(self) -> Table:
        known = METRICS[self.task]
        for metric in (*self.metrics, *self.main_metrics):
            if metric not in known:
                raise ValueError(f"'{metric}' is no metric of the task '{self.task}'; it has {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _rows_fit(self) -> Table:
        names = [entry if isinstance(entry, str) else entry.name for entry in self.methods]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the method '{twice[0]}' stands twice; remove one or give a changed one another name")
        for needed in ("none", self.baseline):
            if needed not in names:
                raise ValueError(f"a table needs the method '{needed}', which its other rows are compared with")
        return self


class Suite(_Strict):
    """Tables to build. `of` takes over the tables of other suites, with everything that these say, but for
    `first_seed` and `split`; `set` replaces, only here, something of what the tables use: it maps
    `<part>.<name>.<field>`, such as `recipes.*.steps`, to a value (see `bcd.config.suites`)."""

    description: str
    first_seed: NonNegativeInt = 0  # a suite that chooses weights must not train with the seeds that others report
    split: Literal["train", "val", "test"] = "test"
    of: list[str] = Field(default=[], exclude_if=not_)
    set: dict[str, Any] = Field(default={}, exclude_if=not_)
    tables: list[Table] = []
    name: str = ""

    @model_validator(mode="after")
    def _has_tables(self) -> Suite:
        if not self.tables and not self.of:
            raise ValueError("a suite needs tables of its own, or other suites to take them from (`of`)")
        return self


class Params(_Strict):
    """Everything in `params/` but the suites, keyed by name; raw dicts of methods are kept for variants."""

    datasets: dict[str, Dataset]
    models: dict[str, Model]
    methods: dict[str, Method]
    recipes: dict[str, Recipe]
    raw_methods: dict[str, Any]
