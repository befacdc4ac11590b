"""What training costs: step times out of records or stated by hand, and what a job pays once for all its students.

A job trains k students. With s_i the seconds of a step of student i (forward, backward, terms) and c those of what the
students share (the teacher's forward pass and the data), it takes

    start + steps x (c + s_1 + ... + s_k)

and the same students in jobs of their own take k x start + steps x (k c + s_1 + ... + s_k); a student without terms has
no teacher, so alone it pays no c. Evaluation is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from bcd.errors import UserError, pick
from bcd.runs import store
from bcd.runs.run import Run, digest

FORWARD_SHARE = 1 / 3  # a backward pass takes about twice as long as the forward pass before it
START_SECONDS = 20.0  # imports and set-up of a process
COMPLEXITY = "complexity.json"  # parameters of models, by benchmarks/complexity.py
BYTES_PER_PARAMETER = 4
CPU = "CPU "  # how the device of a record without a GPU begins


@dataclass(frozen=True)
class Rate:
    """Seconds of a step, None if unknown, and where they come from: `origin` is a word or two for a reader."""

    seconds: float | None
    origin: str
    records: int = 0
    device: str = ""


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
        if run.model_name in self.stated:
            return Rate(self.stated[run.model_name], "stated")
        distilled = bool(run.config["terms"])
        if measured := self.steps.get(kind_of_run(run.config, distilled)):
            return measured
        if distilled and (measured := self.steps.get(kind_of_run(run.config, False))):
            return replace(measured, origin="measured without terms")
        return Rate(self.stated[""], "stated") if "" in self.stated else UNKNOWN

    def share(self, run: Run) -> Rate:
        """Of what the students of a job share; nothing for a run without terms."""
        if not run.config["terms"]:
            return Rate(0.0, "not needed")
        measured = self.shared.get(kind_of_group(run.config, run.teacher.config["model"]))
        if measured and self.step(run).origin == "measured":
            return measured
        teacher = self.step(run.teacher)
        if teacher.seconds is None:
            return UNKNOWN
        images = _images(run.config["recipe"]) / _images(run.teacher.config["recipe"])
        return Rate(self.forward_share * teacher.seconds * images, "estimated")

    def size(self, run: Run) -> int | None:
        """Bytes that the finished run takes in the store."""
        return self.sizes.get(kind_of_model(run.config), self.sizes.get(run.model_name))


def kind_of_run(config: Mapping[str, Any], distilled: bool) -> str:
    """Runs of the same task, model, batch and image size, all distilled or all not, are taken to cost the same."""
    return digest({"model": config["model"], "distilled": distilled, **_batch(config)})


def kind_of_group(config: Mapping[str, Any], teacher: Mapping[str, Any]) -> str:
    """Groups of the same task, teacher model, batch and image size share the same time."""
    return digest({"teacher": teacher, **_batch(config)})


def kind_of_model(config: Mapping[str, Any]) -> str:
    """Finished runs of the same task and model are taken to have the same size."""
    return digest({"task": config["task"], "model": config["model"]})


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
        if not 0 < stated[model] < math.inf:
            raise UserError(f"--step-seconds {text}: write SECONDS or MODEL=SECONDS, such as pspnet-r18=0.35")
    return stated


def measured(results: Path) -> Rates:
    """Medians over every record in the store; where records of one kind are from GPUs and CPUs, those of GPUs count."""
    records = [store.read_json(path) | {"folder": path.parent} for path in (results / "store").glob("*/record.json")]
    steps: dict[str, list[tuple[float, str]]] = {}
    sizes: dict[str, list[int]] = {}
    for record in records:
        spec = record["spec"]
        if record["steps"]:
            sample = record["step_seconds"], _device(record)
            steps.setdefault(kind_of_run(spec, bool(spec["terms"])), []).append(sample)
        size = sum(file.stat().st_size for file in record["folder"].iterdir() if file.is_file())
        sizes.setdefault(kind_of_model(spec), []).append(size)
    shared: dict[str, list[tuple[float, str]]] = {}
    for kind, *sample in _shared_times(records):
        shared.setdefault(kind, []).append(tuple(sample))
    weights = _weights(results / COMPLEXITY)
    return Rates(
        {kind: _rate(samples) for kind, samples in steps.items()},
        {kind: _rate(samples) for kind, samples in shared.items()},
        weights | {kind: int(median(found)) for kind, found in sizes.items()},
    )


def job_seconds(students: Iterable[tuple[Run, int]], rates: Rates) -> tuple[float, float]:
    """Seconds of one job that trains each student for so many steps, and of a job for each of them.

    Students of unknown rate count as nothing, and so does an unknown share.
    """
    known = [(steps, rates.step(run).seconds, rates.share(run).seconds or 0.0) for run, steps in students]
    known = [one for one in known if one[1] is not None]
    if not known:
        return 0.0, 0.0
    own = sum(steps * step for steps, step, _ in known)
    together = max(steps * share for steps, _, share in known)
    apart = sum(steps * share for steps, _, share in known)
    return rates.start_seconds + own + together, rates.start_seconds * len(known) + own + apart


def _shared_times(records: list[dict[str, Any]]) -> Iterable[tuple[str, float, str]]:
    """`(kind, seconds a step, device)` of each group that was trained at once and whose records are all there.

    The time of a group that is none of its learners'. On a GPU, where kernels run behind the program, part of the
    teacher's pass is waited for in the first learner's step and counted there.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for record in records:
        job = tuple(record[name] for name in ("group_seconds", "setup_seconds", "group_size", "steps"))
        groups.setdefault(job, []).append(record)
    for (whole, setup, size, steps), group in groups.items():
        distilled = next((one for one in group if one["spec"]["terms"]), None)
        if distilled and len(group) == size and not any(one["resumes"] for one in group):
            rest = whole - setup - sum(one["train_seconds"] for one in group)
            spec = distilled["spec"]
            yield kind_of_group(spec, spec["teacher"]["model"]), max(rest, 0.0) / steps, _device(distilled)


def _rate(samples: list[tuple[float, str]]) -> Rate:
    chosen = [one for one in samples if not one[1].startswith(CPU)] or samples
    devices = sorted({device for _, device in chosen})
    return Rate(median(seconds for seconds, _ in chosen), "measured", len(chosen), ", ".join(devices))


def _device(record: Mapping[str, Any]) -> str:
    hardware = record["hardware"]
    return hardware["gpu"] if record["device"] == "cuda" else f"{CPU}{hardware['cpu']}"


def _batch(config: Mapping[str, Any]) -> dict[str, Any]:
    parts = ("batch", "unlabelled_batch", "crop", "resize", "precision")
    return {"task": config["task"], **{part: config["recipe"].get(part) for part in parts}}


def _images(recipe: Mapping[str, Any]) -> int:
    return recipe["batch"] + recipe.get("unlabelled_batch", 0)


def _weights(path: Path) -> dict[str, int]:
    """Model -> bytes of its weights, where its parameters have been counted."""
    models = store.read_json(path)["models"] if path.exists() else {}
    return {name: BYTES_PER_PARAMETER * facts["parameters"] for name, facts in models.items()}
