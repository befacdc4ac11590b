"""The finished run that is exported: by its key in a suite, or by its folder of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bcd.config.schema.data import TRAIN, Dataset
from bcd.config.schema.recipes import DetectionRecipe
from bcd.errors import UserError
from bcd.export.formats import exporter
from bcd.runs import store
from bcd.runs.jsonfile import read_as, read_json
from bcd.runs.record import RunResult
from bcd.runs.run import Run
from bcd.runs.spec import RESULTS, DetectionEvaluation, Evaluation, RunSpec, SegmentationEvaluation, Training, digest
from bcd.runs.status import DATA, judge_all


@dataclass(frozen=True)
class Finished:
    """A run that can be loaded, and where its images are.

    folder      its place in the store
    key         its key; for a folder that no small JSON names, the run's hash
    root        the folder of its dataset
    evaluation  how its images are shown
    weights_sha256  of its weights
    """

    folder: Path
    spec: RunSpec
    key: str
    root: Path
    evaluation: Evaluation
    weights_sha256: str


def of_run(suite: str, run: Run, results: Path = RESULTS, data: Path = DATA) -> Finished:
    """A run of a suite; raises UserError unless it is trained with today's params, data and teacher.

    The `evaluation` of an exported student names its form, whose file is the run's `kept_file`.
    """
    status = judge_all(suite, [run], results, data)[run.key]
    record = store.record(status.folder) if status.folder else None
    if not status.trained or status.folder is None or record is None:
        raise UserError(f"{run.key} is {status.verdict}, not finished; run `bcd train --suite {suite} {run.key}` first")
    return Finished(status.folder, record.spec, run.key, data / run.files, run.evaluation, record.weights.sha256)


def kept_file(folder: Path, evaluation: Evaluation) -> Path:
    """Where the file of an exported student lies, in the run's folder of the store, once it is evaluated so.

    Another evaluation may show images at another size, so the form alone is no name.
    """
    assert evaluation.export is not None
    return folder / f"export-{digest(evaluation.model_dump())}{exporter(evaluation.export.format).SUFFIXES[0]}"


def of_folder(folder: Path, datasets: Mapping[str, Dataset], results: Path = RESULTS, data: Path = DATA) -> Finished:
    """A run by its folder of the store, `results/store/<hash>`.

    Its dataset is the one of params/datasets.yaml that it was trained on, and its evaluation one that lies in the
    folder. Raises UserError when the run is not finished, or no dataset of today is the run's.
    """
    folder = folder.absolute()
    record = store.record(folder)
    if record is None:
        raise UserError(f"{folder} holds no finished run; `bcd plan --all` lists the runs of a suite")
    training = record.spec.training
    files = next((one.files for one in datasets.values() if one.use(training.task) == training.data), None)
    if files is None:
        raise UserError(
            f"{folder}: the dataset that this run was trained on is no longer in params/datasets.yaml; put it back"
        )
    key, evaluation = _key(folder.name, results), _evaluation(folder, training)
    return Finished(folder, record.spec, key, data / files, evaluation, record.weights.sha256)


def _key(run_hash: str, results: Path) -> str:
    """The first key of a small JSON below `results` that names the run in PyTorch, else its hash."""
    for path in sorted(results.glob("*/*/**/*.json")):
        if path.parts[len(results.parts) + 1] in ("teachers", "runs", "overrides"):
            found = read_as(RunResult, path)
            if found.store == run_hash and not found.evaluation.exported:
                return found.key
    return run_hash


def _evaluation(folder: Path, training: Training) -> Evaluation:
    """How an evaluation in the run's folder showed the images; else whole, as the recipe resizes them."""
    recipe = training.recipe
    kind: type[DetectionEvaluation] | type[SegmentationEvaluation] = SegmentationEvaluation
    if isinstance(recipe, DetectionRecipe):
        kind = DetectionEvaluation
    for path in sorted(folder.glob("eval-*.json")):
        content = read_json(path)
        shown = {name: content[name] for name in kind.model_fields if name in content}
        return kind.model_validate(shown | {"export": None})
    pad = {"pad": recipe.view.pad} if isinstance(recipe, DetectionRecipe) else {}
    return kind.model_validate({"split": TRAIN, "resize": recipe.view.resize, **pad})
