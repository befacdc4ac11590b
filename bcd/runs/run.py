"""A run as it is asked for: one model to train and evaluate, and where it stands in its suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bcd.config.schema.recipes import Runtime
from bcd.runs.spec import RESULTS, Evaluation, RunSpec, TeacherSpec, Training, digest, training_json


@dataclass(frozen=True)
class Run:
    """One trained and evaluated model.

    key         `<task>/<dataset>/<student>-from-<teacher>/<method>/s<repetition>`, and `?<settings>` of `--set`;
                an exported student has `<method>@<export>`
    training    what its weights depend on
    evaluation  what its metrics depend on beside
    dataset     its name in params/datasets.yaml, or the suite's name for it
    files       the folder below data/
    in_memory   whether decoded images are kept between epochs
    runtime     what changes no result
    model       the model's name in params/models.yaml
    teacher     None for a teacher
    export      the name of `evaluation.export` in params/exports.yaml; None for PyTorch
    """

    key: str
    training: Training
    evaluation: Evaluation
    dataset: str
    files: str
    in_memory: bool
    runtime: Runtime
    model: str
    method: str
    repetition: int
    teacher: Run | None = None
    export: str | None = None

    @property
    def group(self) -> str:
        """The key without its method and export: runs that share data, teacher and seed are trained together."""
        task, dataset, pair, _, repetition = self.key.partition("?")[0].split("/")
        return f"{task}/{dataset}/{pair}/{repetition}"

    @property
    def key_in_pytorch(self) -> str:
        """The key of the same student without an export; its own for a run in PyTorch."""
        return self.key.replace(f"@{self.export}/", "/", 1) if self.export else self.key

    @property
    def distilled_from(self) -> Run | None:
        """The teacher, if a term of the run looks at it."""
        return self.teacher if self.training.terms else None

    @property
    def fingerprint(self) -> str:
        """Hash of training and evaluation, and of the teacher's: known before any data exists."""
        teacher = self.distilled_from and self.distilled_from.fingerprint
        evaluation = self.evaluation.model_dump()
        return digest({"config": training_json(self.training), "evaluation": evaluation, "teacher": teacher})

    @property
    def evaluation_hash(self) -> str:
        """Address of the evaluation inside the run's folder."""
        return digest(self.evaluation.model_dump())

    def spec(self, data_sha256: str, teacher_weights_sha256: str | None) -> RunSpec:
        """Everything the result is a function of, once data and teacher exist; the weights count where terms do.

        data_sha256: what the split TRAIN of its data consists of.
        """
        teacher = self.distilled_from
        if teacher is None:
            return RunSpec(self.training, data_sha256)
        if teacher_weights_sha256 is None:
            raise ValueError(f"{self.key} has distillation terms and needs its teacher's weights hash")
        return RunSpec(self.training, data_sha256, TeacherSpec(teacher.training.model, teacher_weights_sha256))

    def file(self, suite: str, results: Path = RESULTS) -> Path:
        """Where the run's small JSON lies; overridden runs (`--set`) stand apart from the DAG's edges."""
        base, _, settings = self.key.partition("?")
        if settings:
            return results / suite / "overrides" / f"{base}-{digest(settings)}.json"
        return results / suite / ("runs" if self.teacher else "teachers") / f"{self.key}.json"
