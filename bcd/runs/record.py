"""What a run leaves behind, as types of its JSON files.

`Record` is record.json in the store, with times and circumstances. `Report` is an evaluation beside it. `RunResult` is
the small JSON that the DAG passes on: it holds nothing that differs between two executions of the same run (no times,
no host), so both DAG engines see equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import not_
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator

from bcd.errors import UserError
from bcd.runs.code import CodeHashes
from bcd.runs.jsonfile import Json, read_json
from bcd.runs.spec import RunSpec, digest

Count0 = Annotated[int, Field(ge=0)]
Count1 = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]


def _spec(content: object) -> RunSpec:
    if isinstance(content, RunSpec):
        return content
    if not isinstance(content, Mapping):
        raise ValueError("a spec is a mapping")
    try:
        return RunSpec.from_json(content)
    except KeyError as error:
        raise ValueError(f"the spec lacks {error}") from None
    except (AttributeError, TypeError) as error:
        raise ValueError(f"the spec is of another shape: {error}") from None


def _code(content: object) -> CodeHashes:
    if isinstance(content, CodeHashes):
        return content
    if not isinstance(content, Mapping) or sorted(content) != sorted(CodeHashes._fields):
        raise ValueError(f"expected a mapping with {' and '.join(CodeHashes._fields)}")
    return CodeHashes(**{name: str(value) for name, value in content.items()})


def _numbers(content: object) -> object:
    if not isinstance(content, Mapping):
        return content
    return {name: math.nan if value is None else value for name, value in content.items()}


# JSON has no NaN: an undefined number is null there.
Metrics = Annotated[
    dict[str, float],
    BeforeValidator(_numbers),
    PlainSerializer(lambda metrics: {name: value if math.isfinite(value) else None for name, value in metrics.items()}),
]
Spec = Annotated[RunSpec, PlainValidator(_spec), PlainSerializer(RunSpec.to_json)]
Code = Annotated[
    CodeHashes,
    PlainValidator(_code),
    PlainSerializer(lambda code: {"train": code.train, "evaluate": code.evaluate}),
]


def read_spec(folder: Path) -> RunSpec:
    """The spec in a folder of the store; raises UserError if it is missing, damaged or of another folder."""
    path = folder / "spec.json"
    try:
        found = _spec(read_json(path, f"delete the folder {folder}"))
    except ValueError as error:
        raise UserError(f"{path} is not a spec of this program ({error}); delete the folder {folder}") from None
    if found.hash != folder.name:
        raise UserError(f"{path} is the spec of another run, {found.hash}; delete the folder {folder}")
    return found


class Git(Json):
    """Where the code came from; nulls outside of a repository."""

    commit: str | None
    dirty: bool | None


class Hardware(Json):
    """What a run was trained on."""

    cpu: str
    cores: int | None
    gpu: str | None
    cpu_capability: str


class Weights(Json):
    """The weights file of a run."""

    file: str
    bytes: int
    sha256: str


class Standstill(Json):
    """A loss that did not change any more.

    value  it had to the end, without the schedule of its weight
    since  the first step, from 1 on, at which it had that value
    """

    value: float
    since: Count1


class Record(Json):
    """What training left: the spec, what it was done with, what it took, and the weights.

    pretrained     where the initial weights came from
    macs           multiply-accumulates on one image of `macs_input`, height and width
    train_seconds  of the run's own steps; `step_seconds` is their mean
    group_seconds  of the whole job, set-up included, with `group_size` students
    train_cpu_seconds, setup_cpu_seconds, group_cpu_seconds  the same in seconds of the processor, over all threads;
                   absent in older records
    standing       losses that stood still for half of the training or more, see `bcd.train.standstill`; absent if none
    """

    spec: Spec
    code: Code
    git: Git
    versions: dict[str, str]
    hardware: Hardware
    finished: str
    steps: Count0
    train_seconds: Seconds
    step_seconds: Seconds
    resumes: Count0
    threads: Count1
    pretrained: str
    group_size: Count1
    setup_seconds: Seconds
    group_seconds: Seconds
    train_cpu_seconds: Seconds | None = None
    setup_cpu_seconds: Seconds | None = None
    group_cpu_seconds: Seconds | None = None
    weights: Weights
    parameters: int
    macs: int
    macs_input: list[int]
    peak_memory_bytes: int
    device: str
    world: int
    standing: dict[str, Standstill] = Field(default={}, exclude_if=not_)


class Failure(Json):
    """Why the last attempt to train a run ended (`failure.json`).

    step    that was being made
    losses  of that step, as text, and the `files` of its batch, if a loss was not finite
    """

    step: int
    why: str
    losses: dict[str, str] = {}
    files: list[str] = []


class ExportFacts(Json):
    """The file in which a student was evaluated in the place of its PyTorch model, as its sidecar says.

    files      name -> sha256, in the run's folder
    toolchain  package -> version
    cpu_flags  instructions of the processor that decide about int8 and bfloat16
    largest    the largest difference to PyTorch in a logit, over the images of the comparison
    changed    the share of their pixels, 0..1, whose class differs
    """

    files: dict[str, str]
    bytes: Count0
    toolchain: dict[str, str]
    opset: int | None
    cpu_flags: list[str]
    calibration: Count0
    scheme: str
    largest: float
    changed: float


class Latency(Json):
    """The processor's time of a file for one image beside PyTorch eager, one thread each, in turns in one process.

    ratio            of the times, the median over `rounds`; `low` and `high` are its quartiles
    pytorch_seconds  PyTorch's median, for the size of things
    """

    ratio: float
    low: float
    high: float
    rounds: Count1
    pytorch_seconds: Seconds


class Report(Json):
    """One evaluation in a run's folder: `eval-<hash>.json`; the rows and predictions lie beside it.

    Beside these fields the file holds how images were shown (`bcd.runs.spec.Evaluation`).

    data_sha256         of what the split consisted of; None in a report from before it was recorded
    weights_sha256      of the weights that were evaluated; empty, as the next, in a report from before it was recorded
    predictions_sha256  of the file with the predictions
    metrics             in percent, or as docs/reference/metrics.md says; NaN where undefined, which is null in the file
    exported            the file that was evaluated; None for PyTorch, as is its `latency`
    seal                hash of all that it says, so that a number cannot change without a word
    """

    hash: str
    split: str
    data_sha256: str | None = None
    images: int
    weights_sha256: str = ""
    rows_sha256: str
    predictions_sha256: str = ""
    metrics: Metrics
    code: str
    seconds: float
    exported: ExportFacts | None = Field(default=None, exclude_if=not_)
    latency: Latency | None = Field(default=None, exclude_if=not_)
    seal: str = ""

    def sealed(self) -> Report:
        """The same, with the `seal` of what it says."""
        return self.model_copy(update={"seal": digest(self.model_dump(exclude={"seal"}))})


class DataFacts(Json):
    """What a run was trained on, and what a caption must say about it.

    sha256    what the split `train` consisted of; None in a file from before it was recorded
    warnings  what is doubtful about the splits that it was trained and evaluated on
    """

    manifest_sha256: str
    sha256: str | None = None
    origin: str
    official: bool
    note: str
    licence: str
    warnings: list[str] = []


class TeacherFacts(Json):
    """The teacher that a run was distilled from."""

    key: str
    store: str
    weights_sha256: str


class EvaluationFacts(Json):
    """Which evaluation the metrics are of: what its `Report` says of it."""

    hash: str
    split: str
    data_sha256: str | None = None
    images: int
    rows_sha256: str
    predictions_sha256: str = ""
    exported: ExportFacts | None = Field(default=None, exclude_if=not_)


class RunResult(Json):
    """What tables and students need to know of a finished run. Equal results give equal bytes.

    store        the spec's hash
    fingerprint  `Run.fingerprint` when it was made
    teacher      None for a run without terms
    metrics      in percent, or as docs/reference/metrics.md says; NaN where undefined
    standing     as of its `Record`
    seal         as of a `Report`; empty in a file from before it was recorded
    """

    key: str
    task: str
    dataset: str
    model: str
    method: str
    repetition: int
    seed: int
    fingerprint: str
    store: str
    data: DataFacts
    teacher: TeacherFacts | None
    pretrained: str
    weights_sha256: str
    parameters: int
    macs: int
    macs_input: list[int]
    code: Code
    evaluation: EvaluationFacts
    metrics: Metrics
    standing: dict[str, Standstill] = Field(default={}, exclude_if=not_)
    seal: str = ""

    def sealed(self) -> RunResult:
        """The same, with the `seal` of what it says."""
        return self.model_copy(update={"seal": digest(self.model_dump(exclude={"seal"}))})
