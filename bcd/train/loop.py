"""The one train loop: a group of learners on one data stream and one teacher forward per batch.

A single run is a group of one. The loop knows a Task, learners and a teacher; it does not know what a segmentation or
a detection is, nor which losses a method has.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from bcd import distributed
from bcd.config.schema.recipes import Runtime
from bcd.data.loading import dead_workers_named
from bcd.errors import UserError, counted
from bcd.files import atomic_write, sha256_file
from bcd.models import count_parameters
from bcd.runs import store
from bcd.runs.jsonfile import dump
from bcd.runs.provenance import git_state, hardware, versions
from bcd.runs.record import Failure, Record, Weights
from bcd.runs.spec import Evaluation, RunSpec
from bcd.runs.status import code_of
from bcd.tasks.task import Task
from bcd.train.checkpoint import save_weights
from bcd.train.clock import Spent, now
from bcd.train.history import VALIDATION
from bcd.train.learner import Learner
from bcd.train.signals import Stopped, stop_signals
from bcd.train.standstill import sentence
from bcd.train.teacher import Teacher

Say = Callable[[str], None]
SILENCE = 30.0  # seconds after which it says how far it is, however long `log_every` steps take


def train(
    specs: Sequence[RunSpec],
    task: Task,
    teacher: Path | None,
    runtime: Runtime,
    results: Path,
    say: Say,
    validation: Evaluation | None = None,
) -> dict[str, str]:
    """Train every spec that the store does not hold yet; they share data, seed and teacher.

    validation: how images are shown where `runtime` asks for evaluations in between.
    teacher: folder of the teacher's finished run, None if no spec has terms. Returns spec hash -> why it failed, for
    learners that could not go on; the others are finished. Raises UserError if another process trains one of them,
    and `Stopped` after a SIGTERM or SIGINT once everything is saved.
    """
    device = distributed.start()
    _deterministic(specs[0].training.recipe.threads, device)
    with ExitStack() as locks:
        missing = []
        for spec in {spec.hash: spec for spec in specs}.values():
            if store.record(spec.folder(results)):
                if runtime.validation and not (spec.folder(results) / VALIDATION).exists():
                    say(f"{spec.folder(results)}: was trained before without runtime.validation, and has no such curve")
                continue
            if distributed.rank() == 0:
                locks.enter_context(store.open_entry(spec, results))
            if not store.record(spec.folder(results)):
                missing.append(spec)
        if not missing:
            return {}
        return _train_missing(missing, task, teacher, runtime, results, device, say, validation)


def _train_missing(
    specs: Sequence[RunSpec],
    task: Task,
    teacher_folder: Path | None,
    runtime: Runtime,
    results: Path,
    device: torch.device,
    say: Say,
    validation: Evaluation | None,
) -> dict[str, str]:
    begin = now()
    # Now, since the files may change while it trains; the process keeps the answer.
    for spec in specs:
        code_of(spec.training)
    teacher = Teacher(task, specs, teacher_folder, device)
    failed: dict[str, str] = {}
    learners = []
    for spec in specs:
        with _ending(partial(_not_built, failed, spec, results), say):
            learners.append(_learner(spec, spec.folder(results), task, teacher, device, say))
    setup = now().since(begin)
    if learners:
        with stop_signals() as asked_to_stop, dead_workers_named():
            _loop(learners, task, teacher, runtime, asked_to_stop, say, validation)
    took = now().since(begin)
    for learner in learners:
        if not learner.failed and distributed.rank() == 0:
            with _ending(learner.fail, say):
                _finish(learner, task, len(learners), setup, took, say)
    return failed | {learner.spec.hash: learner.failed for learner in learners if learner.failed}


def _learner(spec: RunSpec, folder: Path, task: Task, teacher: Teacher, device: torch.device, say: Say) -> Learner:
    """A learner where it was saved, of which the last failure is forgotten; says so where it starts anew."""
    learner = Learner(spec, folder, task, teacher.shapes, device)
    if distributed.rank() == 0:
        (folder / store.FAILURE).unlink(missing_ok=True)
        if learner.anew:
            say(f"{folder}: {learner.anew}")
    return learner


def _not_built(failed: dict[str, str], spec: RunSpec, results: Path, why: str) -> None:
    failed[spec.hash] = why
    store.note_failure(spec.folder(results), Failure(step=0, why=why))


@contextmanager
def _ending(fail: Callable[[str], None], say: Say) -> Iterator[None]:
    """An exception of one student ends that student only: the others have nothing to do with it.

    Of several processes all would have to agree on who goes on, so there it ends the job.
    """
    try:
        yield
    except Exception as error:
        if distributed.world() > 1:
            raise
        if not isinstance(error, UserError):
            say(traceback.format_exc())
        fail(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")


def _loop(
    learners: Sequence[Learner],
    task: Task,
    teacher: Teacher,
    runtime: Runtime,
    asked_to_stop: list[int],
    say: Say,
    validation: Evaluation | None,
) -> None:
    recipe = learners[0].recipe
    start, total = min(learner.step for learner in learners), recipe.steps
    if start and distributed.rank() == 0:
        say(f"continuing from step {start} of {total}")
    batches = task.batches(start, rank=distributed.rank(), world=distributed.world(), workers=runtime.workers)
    clock = spoken = time.perf_counter()
    for step in range(start, total):
        # A learner that was saved later than the others waits until the stream reaches its step.
        active = [learner for learner in learners if learner.step == step and not learner.failed]
        if not active:
            if all(learner.failed for learner in learners):
                return
            next(batches)
            continue
        batch = next(batches).to(active[0].device)
        tensors, batch = teacher(batch) if any(learner.training.terms for learner in active) else ({}, batch)
        for learner in active:
            with _ending(learner.fail, say):
                learner.train_step(batch, tensors)
            if learner.failed:
                say(f"{learner.folder}: {learner.failed}")
        if validation and distributed.rank() == 0:
            _validate(active, task, validation, runtime, say)
        stop = distributed.anywhere(bool(asked_to_stop))
        if stop or ((step + 1) % runtime.checkpoint_every == 0 and step + 1 < total):
            for learner in active:
                if not learner.failed:
                    learner.save()
        if stop:
            # A signal that another process of this training got ends this one, too.
            number = asked_to_stop[0] if asked_to_stop else signal.SIGTERM
            raise Stopped(number, f"stopped at step {step + 1} of {total}; the same command continues from here")
        due = step == start or (step + 1) % recipe.log_every == 0 or time.perf_counter() - spoken > SILENCE
        if due and distributed.rank() == 0:
            spoken = time.perf_counter()
            rate = (spoken - clock) / (step + 1 - start)
            left = rate * (total - step - 1)
            together = counted(len(active), "learner")
            say(f"step {step + 1}/{total}, {together}, {rate * 1e3:.0f} ms a step, {left:.0f} s left")


def _validate(learners: Sequence[Learner], task: Task, validation: Evaluation, runtime: Runtime, say: Say) -> None:
    """Evaluate learners in between, after the steps that `runtime` asks for."""
    wanted = runtime.validation
    for learner in learners:
        if wanted and not learner.failed and learner.step % wanted.every == 0:
            with _ending(learner.fail, say):
                learner.validate(task, validation, wanted.images)


def _finish(learner: Learner, task: Task, group_size: int, setup: Spent, took: Spent, say: Say) -> None:
    """Write weights and record, and say which losses stood still; raises UserError for weights that are not finite."""
    learner.require_finite()
    path = learner.folder / "model.safetensors"
    save_weights(path, learner.student)
    macs, macs_input = task.cost(learner.student)
    record = Record(
        spec=learner.spec,
        code=code_of(learner.training),
        git=git_state(),
        versions=versions(),
        hardware=hardware(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        steps=learner.step,
        train_seconds=round(learner.spent.wall, 3),
        train_cpu_seconds=round(learner.spent.cpu, 3),
        step_seconds=learner.spent.wall / max(1, learner.step),
        resumes=learner.resumes,
        threads=torch.get_num_threads(),
        pretrained=learner.pretrained,
        group_size=group_size,
        setup_seconds=round(setup.wall, 3),
        setup_cpu_seconds=round(setup.cpu, 3),
        group_seconds=round(took.wall, 3),
        group_cpu_seconds=round(took.cpu, 3),
        weights=Weights(file=path.name, bytes=path.stat().st_size, sha256=sha256_file(path)),
        parameters=count_parameters(learner.student),
        macs=macs,
        macs_input=macs_input,
        peak_memory_bytes=_peak_memory(learner.device),
        device=learner.device.type,
        world=distributed.world(),
        standing=learner.standing,
    )
    for name, found in record.standing.items():
        say(f"{learner.folder}: warning: {sentence(name, found, record.steps)}")
    atomic_write(learner.folder / "record.json", dump(record))
    store.drop_attempt(learner.folder)


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
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch sets it so
    torch.backends.cudnn.benchmark = False
