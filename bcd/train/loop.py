"""The one train loop: a group of learners on one data stream and one teacher forward per batch.

A single run is a group of one. The loop knows a Task, learners and a teacher; it does not know what a segmentation or
a detection is, nor which losses a method has.
"""

from __future__ import annotations

import io
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bcd import distributed
from bcd.data.loading import dead_workers_named
from bcd.distill.distiller import observe
from bcd.distill.taps import Taps
from bcd.files import atomic_write, sha256_file
from bcd.models import count_parameters
from bcd.runs import store
from bcd.runs.record import finished_record
from bcd.runs.run import digest
from bcd.runs.store import dump
from bcd.tasks import Task
from bcd.train.checkpoint import drop_state, load_weights, save_weights
from bcd.train.learner import Learner, tap_paths

Say = Callable[[str], None]


class Stopped(Exception):
    """A signal asked the job to end; every learner was saved."""


def train(
    specs: list[dict[str, Any]], task: Task, teacher: Path | None, runtime: dict[str, Any], results: Path, say: Say
) -> dict[str, str]:
    """Train every spec that the store does not hold yet; they share data, seed and teacher.

    teacher: folder of the teacher's finished run, None if no spec has terms. Returns spec hash -> why it failed, for
    learners whose loss was not finite. Raises UserError if another process trains one of them, and `Stopped` after
    a SIGTERM or SIGINT once everything is saved.
    """
    device = distributed.start()
    _deterministic(specs[0]["recipe"]["threads"], device)
    with ExitStack() as locks:
        missing = {}
        for spec in {digest(spec): spec for spec in specs}.values():
            folder = store.entry(spec, results)
            if store.record(folder):
                continue
            if distributed.rank() == 0:
                locks.enter_context(store.open_entry(spec, results))
            if not store.record(folder):
                missing[digest(spec)] = (spec, folder)
        if not missing:
            return {}
        return _train_missing(missing, task, teacher, runtime, device, say)


def _train_missing(
    missing: dict, task: Task, teacher_folder: Path | None, runtime: dict, device: torch.device, say: Say
) -> dict[str, str]:
    begin = time.perf_counter()
    specs = [spec for spec, _ in missing.values()]
    recipe = specs[0]["recipe"]
    teacher = Teacher(task, specs, teacher_folder, device)
    learners = [Learner(spec, hash_, folder, task, teacher.shapes, device) for hash_, (spec, folder) in missing.items()]
    setup = time.perf_counter() - begin
    with _signals() as asked_to_stop, dead_workers_named():
        _loop(learners, task, teacher, recipe, runtime, device, asked_to_stop, say)
    shared = {
        "group_size": len(learners),
        "setup_seconds": round(setup, 3),
        "group_seconds": round(time.perf_counter() - begin, 3),
    }
    for learner in learners:
        if not learner.failed and distributed.rank() == 0:
            _finish(learner, task, shared)
    return {learner.hash: learner.failed for learner in learners if learner.failed}


def _loop(
    learners: list[Learner],
    task: Task,
    teacher: Teacher,
    recipe: dict,
    runtime: dict,
    device: torch.device,
    asked_to_stop,
    say: Say,
) -> None:
    start, total = min(learner.step for learner in learners), recipe["steps"]
    if start and distributed.rank() == 0:
        say(f"continuing from step {start} of {total}")
    batches = task.batches(start, rank=distributed.rank(), world=distributed.world(), workers=runtime["workers"])
    clock = time.perf_counter()
    for step in range(start, total):
        # A learner that was saved later than the others waits until the stream reaches its step.
        active = [learner for learner in learners if learner.step == step and not learner.failed]
        if not active:
            if all(learner.failed for learner in learners):
                return
            next(batches)
            continue
        batch = next(batches).to(device)
        tensors, batch = teacher(batch) if any(learner.spec["terms"] for learner in active) else ({}, batch)
        for learner in active:
            learner.train_step(batch, tensors)
            if learner.failed:
                say(f"{learner.folder}: {learner.failed}")
        stop = distributed.anywhere(bool(asked_to_stop))
        if stop or ((step + 1) % runtime["checkpoint_every"] == 0 and step + 1 < total):
            for learner in active:
                if not learner.failed:
                    learner.save()
        if stop:
            raise Stopped(f"stopped at step {step + 1} of {total}; the same command continues from here")
        if (step + 1) % recipe["log_every"] == 0 and distributed.rank() == 0:
            rate = (time.perf_counter() - clock) / (step + 1 - start)
            left = rate * (total - step - 1)
            say(f"step {step + 1}/{total}, {len(active)} learners, {rate * 1e3:.0f} ms a step, {left:.0f} s left")


class Teacher:
    """A frozen model in eval mode and its taps.

    Called with a batch it returns its tap tensors, without gradients, and the batch with what its students share.
    """

    def __init__(self, task: Task, specs: list[dict], folder: Path | None, device: torch.device):
        self._names = {tap for spec in specs for term in spec["terms"] for tap in term["taps"]}
        self.shapes: dict[str, Any] = {}
        if not self._names:
            return
        self._task, self._device = task, device
        self._precision = specs[0]["recipe"]["precision"]
        self._model = load_model(task, next(s["teacher"]["model"] for s in specs if s["terms"]), folder).to(device)
        self._model.requires_grad_(False).eval()
        paths = tap_paths(task, self._model, self._names)
        sample = task.sample().to(device)
        self.shapes = observe(self._model, paths, lambda: task.forward(self._model, sample, self._names))
        self._taps = Taps(self._model, paths)

    @torch.no_grad()
    def __call__(self, batch: Any) -> tuple[dict[str, Tensor], Any]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            batch = self._task.forward(self._model, batch, self._names)
        return self._taps.read(), batch


def load_model(task: Task, model: dict[str, Any], folder: Path) -> nn.Module:
    """The trained model of a finished run, on the CPU; its weights must be those of the record."""
    built = task.build(model | {"pretrained": "none"})
    load_weights(store.checked_weights(folder), built)
    return built


def evaluate(
    spec: dict[str, Any], folder: Path, task: Task, evaluation: dict[str, Any], code: str, say: Say
) -> dict[str, Any]:
    """Evaluate a finished run, or return the evaluation that the store already holds."""
    from bcd.metrics import save_rows

    name = f"eval-{digest(evaluation)}"
    report = folder / f"{name}.json"
    if report.exists():
        return store.read_json(report)
    say(f"evaluating {folder} on '{evaluation['split']}'")
    begin = time.perf_counter()
    result = task.evaluate(load_model(task, spec["model"], folder), evaluation, distributed.own_device())
    save_rows(folder / f"{name}.npz", result["rows"], result["names"])
    atomic_write(folder / f"{name}-predictions.npz", _npz(result["predictions"]))
    content = {
        "hash": digest(evaluation),
        **evaluation,
        "images": len(result["names"]),
        "rows_sha256": sha256_file(folder / f"{name}.npz"),
        "metrics": result["metrics"],
        "code": code,
        "seconds": round(time.perf_counter() - begin, 3),
    }
    atomic_write(report, dump(content))
    return content


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _finish(learner: Learner, task: Task, shared: dict[str, Any]) -> None:
    path = learner.folder / "model.safetensors"
    save_weights(path, learner.student)
    weights = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    macs, macs_input = task.cost(learner.student)
    facts = learner.finish() | shared | {
        "weights": weights,
        "parameters": count_parameters(learner.student),
        "macs": macs,
        "macs_input": macs_input,
        "peak_memory_bytes": _peak_memory(learner.device),
        "device": learner.device.type,
        "world": distributed.world(),
    }  # fmt: skip
    atomic_write(learner.folder / "record.json", dump(finished_record(learner.spec, facts)))
    drop_state(learner.folder)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _deterministic(threads: int, device: torch.device) -> None:
    """Pin what changes bits: threads and algorithms. Some CUDA kernels (bilinear backward) have no exact form."""
    torch.set_num_threads(threads)
    # Like `use_deterministic_algorithms`, without the seconds that its import of the compiler takes.
    torch.set_deterministic_debug_mode("warn" if device.type == "cuda" else "error")
    # A debugging aid that writes NaN into every new tensor; it costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False


@contextmanager
def _signals():
    """Collects SIGTERM and SIGINT instead of dying from them; a second Ctrl-C takes effect at once.

    A second SIGTERM does not: Slurm, srun and torchrun each pass on the one that they were sent.
    """
    received: list[int] = []

    def remember(number: int, _frame) -> None:
        if number == signal.SIGINT and number in received:
            sys.exit(128 + number)
        received.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
