"""Where a run stands against today's params, teachers, data and code: the one place that judges it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bcd.config.schema.data import TRAIN
from bcd.data.acquire.manifest import Identity, identity
from bcd.errors import UserError
from bcd.runs import store
from bcd.runs.code import CodeHashes, fingerprints
from bcd.runs.jsonfile import read_as
from bcd.runs.progress import read_progress, why_anew
from bcd.runs.provenance import packages
from bcd.runs.record import RunResult
from bcd.runs.run import Run
from bcd.runs.spec import RESULTS, Evaluation, RunSpec, Training

DATA = Path("data")


class Verdict(StrEnum):
    """What is to be done about a run."""

    DONE = "done"  # nothing
    STALE = "stale"  # the code that made it has changed: redone when the user says so
    CHANGED = "changed"  # its parameters, training data or teacher have: to be trained
    # Trained, in the store; its small JSON is missing or of other test data, or its exported file is gone: costs no
    # training.
    STORED = "stored"
    FAILED = "failed"  # its last training ended with an error: to be trained again, once that is mended
    UNFINISHED = "unfinished"  # to be continued
    MISSING = "missing"  # to be trained


NO_RESULT = "runs are missing"  # why a run without its small JSON is not usable
TO_TRAIN = (Verdict.MISSING, Verdict.UNFINISHED, Verdict.FAILED, Verdict.CHANGED)
USABLE = (Verdict.DONE, Verdict.STALE)


@dataclass(frozen=True)
class Status:
    """The verdict on a run.

    suite   whose run it is
    why     for what is not usable, the reason, in the words of a message about several runs
    step    how far its training has come, as far as the next one goes on from there
    note    what is to be known before it is trained, such as why the last attempt failed
    file    its small JSON, which `result` is the content of, if it is there
    folder  its place in the store; None while its data or its teacher is missing or changed
    """

    suite: str
    run: Run
    verdict: Verdict
    why: str
    step: int
    file: Path
    result: RunResult | None
    folder: Path | None
    note: str = ""

    @property
    def usable(self) -> bool:
        """Whether tables may be made of it."""
        return self.verdict in USABLE

    @property
    def stale(self) -> bool:
        """Whether the code that trained or evaluated it has changed since."""
        return self.verdict is Verdict.STALE

    @property
    def left(self) -> int:
        """Steps that are still to be trained."""
        return self.run.training.recipe.steps - self.step if self.verdict in TO_TRAIN else 0

    @property
    def trained(self) -> bool:
        """Whether its weights are today's."""
        return self.usable or self.verdict is Verdict.STORED

    @property
    def weights_sha256(self) -> str | None:
        """Of its weights, those in the store if it stands there, else those of its small JSON."""
        record = store.record(self.folder) if self.folder and self.verdict is Verdict.STORED else None
        if record:
            return record.weights.sha256
        return self.result.weights_sha256 if self.result else None

    @property
    def line(self) -> str:
        """Verdict, key and what is to be known, for `bcd plan`."""
        at = f" at step {self.step}, {self.left} left" if self.step and self.left else ""
        said = self.note or (self.why if self.result else "")
        return f"{self.verdict:<10} {self.run.key}{at}{f': {said}' if said else ''}"

    @property
    def measure_again(self) -> str:
        """The remedy for an evaluation that is damaged."""
        return f"run `bcd evaluate --suite {self.suite} {self.run.key}` to measure it again"

    @property
    def finished(self) -> RunResult:
        """The small JSON of a usable run."""
        if self.result is None:
            raise ValueError(f"{self.run.key} is {self.verdict}")
        return self.result

    @property
    def place(self) -> Path:
        """The folder of a run that has one."""
        if self.folder is None:
            raise ValueError(f"{self.run.key} has no folder: it is {self.verdict}")
        return self.folder

    @property
    def rows_file(self) -> Path:
        """Per-image counts of its evaluation."""
        return self.place / f"eval-{self.finished.evaluation.hash}.npz"

    @property
    def predictions_file(self) -> Path:
        """Predictions of the panel images."""
        return self.place / f"eval-{self.finished.evaluation.hash}-predictions.npz"


def code_of(training: Training, evaluation: Evaluation | None = None) -> CodeHashes:
    """Hashes of today's code that such a training and its evaluation are made by; None for one in PyTorch."""
    form = evaluation.export.format if evaluation and evaluation.export else ""
    return fingerprints(training.task, training.data.format, sorted({term.term for term in training.terms}), form)


def made_by(training: Training) -> dict[str, str]:
    """What makes the steps of such a training today, in the words of a message: code, and packages with versions."""
    return {"the training code": code_of(training).train, **packages()}


def judge_all(suite: str, runs: Iterable[Run], results: Path = RESULTS, data: Path = DATA) -> dict[str, Status]:
    """The status of each run and of its teacher by key, teachers first."""
    wanted = {run.key: run for run in runs}
    wanted = {run.teacher.key: run.teacher for run in wanted.values() if run.teacher} | wanted
    found = {files: identity(data / files) for files in {run.files for run in wanted.values()}}
    statuses: dict[str, Status] = {}
    for key, run in sorted(wanted.items(), key=lambda item: item[1].teacher is not None):
        teacher = statuses[run.distilled_from.key] if run.distilled_from else None
        statuses[key] = judge(suite, run, found[run.files], teacher, results)
    return statuses


def judge(suite: str, run: Run, data: Identity | None, teacher: Status | None, results: Path = RESULTS) -> Status:
    """The verdict on one run.

    data: None where the data is not here, since tables need results alone.
    teacher: that of the run's teacher, None for a run without terms.
    """
    file = run.file(suite, results)
    result = read_as(RunResult, file) if file.exists() else None
    why = _mismatch(run, result, data, teacher) or _unlike_record(run, result, results)
    if result and not why:
        verdict = Verdict.DONE if result.code == code_of(run.training, run.evaluation) else Verdict.STALE
        steps, place = run.training.recipe.steps, results / "store" / result.store
        if gone := _gone(result, place):
            verdict, why = Verdict.STORED, gone
        return Status(suite, run, verdict, why, steps, file, result, place)
    spec = _spec(run, data, teacher)
    folder = spec.folder(results) if spec else None
    if folder and store.record(folder):
        return Status(suite, run, Verdict.STORED, why, run.training.recipe.steps, file, result, folder)
    step, note, failed = _attempt(folder, run.training) if folder else (0, "", False)
    verdict = (
        Verdict.FAILED if failed else Verdict.UNFINISHED if step else Verdict.CHANGED if result else Verdict.MISSING
    )
    if failed and not result:
        why = f"runs failed (`bcd plan --suite {suite}` says why)"
    return Status(suite, run, verdict, why, step, file, result, folder, note)


def _attempt(folder: Path, training: Training) -> tuple[int, str, bool]:
    """What the last attempt to train left: the step to go on from, a note on it, and whether it failed."""
    try:
        failure = store.failure(folder)
        progress = read_progress(folder)
    except UserError as error:
        return 0, str(error), True
    anew = why_anew(progress, made_by(training)) if progress else ""
    step = progress.step if progress and not anew else 0
    return step, failure.why if failure else anew, failure is not None


def _mismatch(run: Run, result: RunResult | None, data: Identity | None, teacher: Status | None) -> str:
    """Why the small JSON is not today's, or ""."""
    if result is None:
        return NO_RESULT
    if result.fingerprint != run.fingerprint:
        return "runs were made with other parameters"
    if result.teacher and not (teacher and teacher.result):
        return "runs have no teacher here to be checked against"
    if result.teacher and teacher and result.teacher.weights_sha256 != teacher.weights_sha256:
        return "runs were distilled from another teacher than today's"
    return _other_data(run, result, data) if data else ""


def _other_data(run: Run, result: RunResult, data: Identity) -> str:
    """What of the run's data differs from today's, or ""."""
    if result.data.sha256 != data.split_sha256.get(TRAIN):
        return f"runs were made with other data than data/{run.files}"
    split = run.evaluation.split
    if result.evaluation.data_sha256 != data.split_sha256.get(split):
        return f"runs were evaluated on another '{split}' than that of data/{run.files}"
    if result.data.manifest_sha256 != data.sha256:
        return f"runs say of data/{run.files} what its manifest no longer says"
    return ""


def _unlike_record(run: Run, result: RunResult | None, results: Path) -> str:
    """How the small JSON differs from what the store holds under the name that it gives, or ""."""
    if result is None:
        return ""
    found = store.record(results / "store" / result.store)
    if found is None:
        return "runs are no longer in results/store"
    theirs = (found.weights.sha256, found.spec.training.hash, found.spec.teacher and found.spec.teacher.weights_sha256)
    if theirs != (result.weights_sha256, run.training.hash, result.teacher and result.teacher.weights_sha256):
        return "runs do not say what their records in results/store say"
    return "" if result.seal == result.sealed().seal else "runs do not say what was written"


def _gone(result: RunResult, folder: Path) -> str:
    """Why an exported student is to be exported again, or ""."""
    exported = result.evaluation.exported
    lacking = next((name for name in exported.files if not (folder / name).exists()), None) if exported else None
    return "runs have lost their exported file in results/store" if lacking else ""


def _spec(run: Run, data: Identity | None, teacher: Status | None) -> RunSpec | None:
    """The run's spec, or None while its data or its teacher is missing or changed."""
    train = data and data.split_sha256.get(TRAIN)
    if not train or (teacher and not teacher.trained):
        return None
    return run.spec(train, teacher.weights_sha256 if teacher else None)
