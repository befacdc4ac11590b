"""One job of the DAG: train and evaluate what the store does not hold of a group of runs, and write their edges."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bcd.config.schema.data import TRAIN, VALIDATION
from bcd.data import findings
from bcd.data.acquire import manifest
from bcd.errors import UserError, counted
from bcd.files import atomic_write
from bcd.runs import store
from bcd.runs.jsonfile import dump
from bcd.runs.provenance import git_trouble
from bcd.runs.record import CodeHashes, DataFacts, EvaluationFacts, RunResult, TeacherFacts
from bcd.runs.run import Run
from bcd.runs.spec import RESULTS, RunSpec
from bcd.runs.status import DATA, Status, code_of, judge_all
from bcd.runs.unfit import require_fit_data
from bcd.tasks.task import Task
from bcd.train.history import FILE

Say = Callable[[str], None]


def data_facts(run: Run) -> DataFacts:
    """What a result and a caption must say about the run's data; raises UserError where the data is not here."""
    loaded = manifest.load(DATA / run.files)
    return DataFacts(
        manifest_sha256=loaded.sha256,
        sha256=loaded.sha256_of(TRAIN),
        origin=loaded.origin,
        official=loaded.official,
        note=loaded.note,
        licence=loaded.licence,
        warnings=findings.warnings(loaded.check, run.training.task, (TRAIN, run.evaluation.split)),
    )


def teacher_of(suite: str, run: Run) -> TeacherFacts | None:
    """The run's trained teacher; None for a run without terms. Raises UserError unless it is today's."""
    if run.distilled_from is None:
        return None
    found = judge_all(suite, [run.distilled_from], RESULTS, DATA)[run.distilled_from.key]
    if found.result is None:
        raise UserError(f"{found.file} is missing: the teacher of {run.key} is not trained; run `{_teachers(suite)}`")
    if not found.usable:
        raise UserError(f"{found.file} is not today's ({found.why}); delete it and run `{_teachers(suite)}`")
    return _teacher_facts(found)


def _teachers(suite: str) -> str:
    return f"snakemake teachers --config suite={suite}"


def _teacher_facts(teacher: Status) -> TeacherFacts:
    result = teacher.finished
    return TeacherFacts(key=result.key, store=result.store, weights_sha256=result.weights_sha256)


def resolve(suite: str, run: Run) -> RunSpec:
    """The full spec of a run, once its data and its teacher exist."""
    teacher = teacher_of(suite, run)
    data = manifest.load(DATA / run.files).sha256_of(TRAIN)
    return run.spec(data, teacher.weights_sha256 if teacher else None)


def run_group(suite: str, runs: Sequence[Run], say: Say) -> None:
    """Train, evaluate and write the small JSON of each run. All must belong to one group.

    Raises UserError for data that does not serve their task, before anything trains; and naming the runs that failed,
    after the others are finished and written.
    """
    if len({run.group for run in runs}) != 1:
        raise UserError("the keys belong to different groups; they must differ in the method only")
    first = runs[0].training
    if any((t.data, t.recipe, t.seed, t.model) != (first.data, first.recipe, first.seed, first.model) for t in
           (run.training for run in runs)):  # fmt: skip
        raise UserError("runs of one group must share data, recipe, model and seed; train them one by one")
    require_fit_data(runs)
    specs = [resolve(suite, run) for run in runs]
    for sentence in _intents(runs, specs):
        say(sentence)
    from bcd import distributed
    from bcd.tasks import make_task
    from bcd.train import loop

    if trouble := git_trouble():
        say(trouble)
    task = make_task(first, DATA / runs[0].files, in_memory=runs[0].in_memory)
    teacher = next((found for run in runs if (found := teacher_of(suite, run))), None)
    folder = RESULTS / "store" / teacher.store if teacher else None
    validation = runs[0].evaluation.model_copy(update={"split": VALIDATION, "export": None})
    failed = loop.train(specs, task, folder, runs[0].runtime, RESULTS, say, validation)
    rank = distributed.rank()
    distributed.finish()
    if rank != 0:
        return
    reasons = [
        _finish(suite, run, spec, task, failed.get(spec.hash), say) for run, spec in zip(runs, specs, strict=True)
    ]
    if any(reasons):
        others = "; the other runs of the job are finished" if not all(reasons) else ""
        raise UserError("; ".join(reason for reason in reasons if reason) + others)


def _intents(runs: Sequence[Run], specs: Sequence[RunSpec]) -> list[str]:
    """Of each training that is to be done its run, its steps and its log, in the first of several processes."""
    if int(os.environ.get("RANK", 0)):
        return []
    named: dict[Path, Run] = {}
    for run, spec in zip(runs, specs, strict=True):
        named.setdefault(spec.folder(RESULTS), run)  # exported students have the training of another run
    return [
        f"{run.key}: {counted(run.training.recipe.steps, 'step')}, log {folder / FILE}"
        for folder, run in named.items()
        if run.training.recipe.steps and not store.record(folder)
    ]


def _finish(suite: str, run: Run, spec: RunSpec, task: Task, failed: str | None, say: Say) -> str | None:
    """Evaluate a trained run; returns `key: reason` if its training or its evaluation failed."""
    if failed is None:
        try:
            evaluate_run(suite, run, spec, task, say)
        except UserError as error:
            failed = str(error)
        except Exception as error:  # of this run only: the others have nothing to do with it
            say(traceback.format_exc())
            failed = f"{type(error).__name__}: {error}"
    return failed and f"{run.key}: {failed}"


def evaluate_run(suite: str, run: Run, spec: RunSpec, task: Task, say: Say) -> RunResult:
    """Evaluate a finished run (or find its evaluation in the store) and write its small JSON."""
    from bcd.train import evaluation

    folder, code = spec.folder(RESULTS), code_of(run.training, run.evaluation)
    data = manifest.load(DATA / run.files).sha256_of(run.evaluation.split)
    report = evaluation.evaluate(spec, folder, task, DATA / run.files, run.evaluation, data, code.evaluate, say)
    trained = store.record(folder)
    if trained is None:
        raise UserError(f"{folder} is not finished; run the same command again to finish it")
    result = RunResult(
        key=run.key,
        task=run.training.task,
        dataset=run.dataset,
        model=run.model,
        method=run.method,
        repetition=run.repetition,
        seed=run.training.seed,
        fingerprint=run.fingerprint,
        store=spec.hash,
        data=data_facts(run),
        teacher=teacher_of(suite, run),
        pretrained=trained.pretrained,
        weights_sha256=trained.weights.sha256,
        parameters=trained.parameters,
        macs=trained.macs,
        macs_input=trained.macs_input,
        code=CodeHashes(train=trained.code.train, evaluate=report.code),
        evaluation=EvaluationFacts(**report.model_dump(include=set(EvaluationFacts.model_fields))),
        metrics=report.metrics,
        standing=trained.standing,
    ).sealed()
    _write_edge(run.file(suite, RESULTS), dump(result))
    return result


def _write_edge(path: Path, content: str) -> None:
    """Write it, or touch one that says this already, since DAG engines compare times: that may be read-only."""
    if path.is_file() and path.read_bytes() == content.encode():
        with suppress(OSError):
            path.touch()
    else:
        atomic_write(path, content)


def evaluate_finished(suite: str, run: Run, say: Say) -> dict[str, float]:
    """Metrics of a finished run, evaluated anew if the store does not hold this evaluation."""
    from bcd.tasks import make_task

    spec = resolve(suite, run)
    if not store.record(spec.folder(RESULTS)):
        raise UserError(f"{run.key} is not trained; run `bcd train --suite {suite} {run.key}`")
    task = make_task(run.training, DATA / run.files, in_memory=False)
    return evaluate_run(suite, run, spec, task, say).metrics
