"""What training costs: step times that are recorded, timed or stated, and what a job pays once for all its students.

A job trains k students. With s_i the seconds of a step of student i (forward, backward, terms) and c those of what the
students share (the teacher's forward pass and the data), it takes

    start + steps x (c + s_1 + ... + s_k)

and the same students in jobs of their own take k x start + steps x (k c + s_1 + ... + s_k); a student without terms has
no teacher, so alone it pays no c. Evaluation is not counted.

On a CPU the processor's time counts, divided by the threads, since a busy machine stretches the time on the wall.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Literal

from bcd.config.schema.models import AnyModel
from bcd.config.schema.recipes import AnyRecipe, SegmentationRecipe
from bcd.errors import UserError, pick
from bcd.planning import step_times
from bcd.planning.step_times import Timing
from bcd.runs.jsonfile import Json, read_as
from bcd.runs.record import Record
from bcd.runs.run import Run
from bcd.runs.spec import Training, digest, model_json

FORWARD_SHARE = 1 / 3  # a backward pass takes about twice as long as the forward pass before it
START_SECONDS = 20.0  # imports and set-up of a process
LONGEST_STEP = 1e6  # seconds that may be stated for a step; eleven days
COMPLEXITY = "complexity.json"  # parameters of models, by benchmarks/complexity.py
BYTES_PER_PARAMETER = 4
Sample = tuple[float, str]  # seconds of a step, and the device
CPU = "CPU "  # how the device of a record without a GPU begins
MEASURED, TIMED, STATED = "measured", "timed", "stated"  # where a rate comes from: records, a few steps, or a user


class Size(Json):
    """What is known of a model without training it."""

    parameters: int


class Complexity(Json):
    """The file of that name, as far as it is read here."""

    models: dict[str, Size]


@dataclass(frozen=True)
class Rate:
    """Seconds of a step, None if unknown, and where they come from: `origin` is a word or two for a reader.

    Of what is measured or timed, `low` and `high` are the least and the most of the samples: records, or single steps.
    """

    seconds: float | None
    origin: str
    samples: int = 0
    device: str = ""
    low: float | None = None
    high: float | None = None


UNKNOWN = Rate(None, "unknown")


@dataclass(frozen=True)
class Rates:
    """What is known of step times and sizes; `kind_of_run` and the like say what is taken to cost the same.

    stated: model -> seconds of a step, which wins over measured ones; the key "" holds for whatever is not measured
    forward_share: what a forward pass costs of a training step; it stands for a shared time that is not measured
    """

    steps: Mapping[str, Rate] = field(default_factory=dict)
    shared: Mapping[str, Rate] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    stated: Mapping[str, float] = field(default_factory=dict)
    forward_share: float = FORWARD_SHARE
    start_seconds: float = START_SECONDS

    def step(self, run: Run) -> Rate:
        """Of the student alone."""
        if run.model in self.stated:
            return Rate(self.stated[run.model], STATED)
        distilled = bool(run.training.terms)
        if known := self.steps.get(kind_of_run(run.training, distilled)):
            return known
        if distilled and (known := self.steps.get(kind_of_run(run.training, False))):
            return replace(known, origin=f"{known.origin} without terms")
        return Rate(self.stated[""], STATED) if "" in self.stated else UNKNOWN

    def share(self, run: Run) -> Rate:
        """Of what the students of a job share; nothing for a run without terms."""
        if not run.training.terms:
            return Rate(0.0, "not needed")
        if run.teacher is None:
            return UNKNOWN
        known = self.shared.get(kind_of_group(run.training, run.teacher.training.model))
        if known and self.step(run).origin in (MEASURED, TIMED):
            return known
        teacher = self.step(run.teacher)
        if teacher.seconds is None:
            return UNKNOWN
        images = _images(run.training.recipe) / _images(run.teacher.training.recipe)
        return Rate(self.forward_share * teacher.seconds * images, "estimated")

    def bound(self, which: Literal["low", "high"]) -> Rates:
        """The same with the least, or the most, of each measured time in its place."""

        def chosen(rates: Mapping[str, Rate]) -> dict[str, Rate]:
            return {kind: replace(rate, seconds=getattr(rate, which)) for kind, rate in rates.items()}

        return replace(self, steps=chosen(self.steps), shared=chosen(self.shared))

    def size(self, run: Run) -> int | None:
        """Bytes that the finished run takes in the store."""
        return self.sizes.get(kind_of_model(run.training), self.sizes.get(run.model))


def kind_of_run(training: Training, distilled: bool) -> str:
    """Runs of the same task, model, batch and image size, all distilled or all not, are taken to cost the same."""
    return digest({"model": model_json(training.model), "distilled": distilled, "batch": _batch(training)})


def kind_of_group(training: Training, teacher: AnyModel) -> str:
    """Groups of the same task, teacher model, batch and image size share the same time."""
    return digest({"teacher": model_json(teacher), "batch": _batch(training)})


def kind_of_model(training: Training) -> str:
    """Finished runs of the same task and model are taken to have the same size."""
    return digest({"task": training.task, "model": model_json(training.model)})


def parse_stated(texts: Iterable[str], models: Collection[str]) -> dict[str, float]:
    """`["0.3", "pspnet-r18=0.2"]` -> `{"": 0.3, "pspnet-r18": 0.2}`, seconds of a step; UserError for anything else."""
    stated = {}
    for text in texts:
        model, _, number = text.rpartition("=")
        if model:
            pick(dict.fromkeys(models), model, "--step-seconds")
        try:
            stated[model] = float(number)
        except ValueError:
            stated[model] = math.nan
        if not 0 < stated[model] <= LONGEST_STEP:
            raise UserError(f"--step-seconds {text}: write SECONDS or MODEL=SECONDS, such as pspnet-r18=0.35")
    return stated


def measured(results: Path) -> Rates:
    """Medians over every record in the store, and over steps that were timed where no record knows a kind.

    Where records of one kind are from GPUs and CPUs, those of GPUs count.
    """
    found = {path.parent: read_as(Record, path) for path in (results / "store").glob("*/record.json")}
    steps: dict[str, list[Sample]] = {}
    sizes: dict[str, list[int]] = {}
    for folder, record in found.items():
        training = record.spec.training
        if record.steps:
            spent = _undisturbed(record.train_seconds, record.train_cpu_seconds, record)
            sample = spent / record.steps, _device(record)
            steps.setdefault(kind_of_run(training, bool(training.terms)), []).append(sample)
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        sizes.setdefault(kind_of_model(training), []).append(size)
    shared: dict[str, list[Sample]] = {}
    for kind, sample in _shared_times(found.values()):
        shared.setdefault(kind, []).append(sample)
    timed = step_times.read(results)
    return Rates(
        _timed(timed.steps) | {kind: _rate(samples, MEASURED) for kind, samples in steps.items()},
        _timed(timed.shared) | {kind: _rate(samples, MEASURED) for kind, samples in shared.items()},
        _weights(results / COMPLEXITY) | {kind: int(median(all_sizes)) for kind, all_sizes in sizes.items()},
    )


def job_seconds(students: Iterable[tuple[Run, int]], rates: Rates) -> tuple[float, float]:
    """Seconds of one job that trains each student for so many steps, and of a job for each of them.

    Students of unknown rate count as nothing, and so does an unknown share.
    """
    known = [
        (steps, seconds, rates.share(run).seconds or 0.0)
        for run, steps in students
        if (seconds := rates.step(run).seconds) is not None
    ]
    if not known:
        return 0.0, 0.0
    own = sum(steps * step for steps, step, _ in known)
    together = max(steps * share for steps, _, share in known)
    apart = sum(steps * share for steps, _, share in known)
    return rates.start_seconds + own + together, rates.start_seconds * len(known) + own + apart


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3.5 h`."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _shared_times(records: Iterable[Record]) -> Iterable[tuple[str, Sample]]:
    """`(kind, (seconds a step, device))` of each group that was trained at once and whose records are all there.

    The time of a group that is none of its learners'. On a GPU, where kernels run behind the program, part of the
    teacher's pass is waited for in the first learner's step and counted there.
    """
    groups: dict[tuple[float, float, int, int], list[Record]] = {}
    for record in records:
        job = (record.group_seconds, record.setup_seconds, record.group_size, record.steps)
        groups.setdefault(job, []).append(record)
    for (whole, setup, size, steps), group in groups.items():
        distilled = next((record for record in group if record.spec.teacher), None)
        if distilled and steps and len(group) == size and not any(record.resumes for record in group):
            rest = _undisturbed(
                whole - setup - sum(record.train_seconds for record in group), _shared_cpu(distilled, group), distilled
            )
            training, teacher = distilled.spec.training, distilled.spec.teacher
            assert teacher is not None
            yield kind_of_group(training, teacher.model), (max(rest, 0.0) / steps, _device(distilled))


def _shared_cpu(record: Record, group: Sequence[Record]) -> float | None:
    """Seconds of the processor in the job of these records that are none of its learners'."""
    whole, setup = record.group_cpu_seconds, record.setup_cpu_seconds
    steps = [each.train_cpu_seconds for each in group]
    known = [seconds for seconds in steps if seconds is not None]
    return None if whole is None or setup is None or len(known) < len(steps) else whole - setup - sum(known)


def _undisturbed(wall: float, cpu: float | None, record: Record) -> float:
    """Seconds that a training would take with the machine to itself: more than it took it does not."""
    return wall if cpu is None or record.device == "cuda" else min(wall, cpu / record.threads)


def _timed(kinds: Mapping[str, Timing]) -> dict[str, Rate]:
    return {kind: _rate([(s, timing.device) for s in timing.seconds], TIMED) for kind, timing in kinds.items()}


def _rate(samples: Sequence[Sample], origin: str) -> Rate:
    chosen = [sample for sample in samples if not sample[1].startswith(CPU)] or samples
    devices = sorted({device for _, device in chosen})
    times = [seconds for seconds, _ in chosen]
    return Rate(median(times), origin, len(chosen), ", ".join(devices), min(times), max(times))


def _device(record: Record) -> str:
    hardware = record.hardware
    return hardware.gpu or "GPU" if record.device == "cuda" else f"{CPU}{hardware.cpu}"


def _batch(training: Training) -> list[object]:
    """What the time of a step depends on beside the models."""
    recipe, view = training.recipe, training.recipe.view.model_dump()
    shown = [view.get("crop"), view.get("resize")]
    return [training.task, recipe.batch, _images(recipe), *shown, recipe.precision]


def _images(recipe: AnyRecipe) -> int:
    return recipe.batch + (recipe.unlabelled_batch if isinstance(recipe, SegmentationRecipe) else 0)


def _weights(path: Path) -> dict[str, int]:
    """Model -> bytes of its weights, where its parameters have been counted."""
    models = read_as(Complexity, path, "delete it").models if path.exists() else {}
    return {name: BYTES_PER_PARAMETER * facts.parameters for name, facts in models.items()}
