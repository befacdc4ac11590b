"""A finished run as a model: for teachers, for evaluation, and for whoever wants to use one."""

from __future__ import annotations

from pathlib import Path

from bcd.config.schema.models import AnyModel
from bcd.errors import UserError
from bcd.models.base import DenseModel
from bcd.runs import store
from bcd.runs.spec import RunSpec
from bcd.tasks import make_task
from bcd.tasks.task import Task
from bcd.train.checkpoint import load_weights


def load_trained(folder: str | Path) -> tuple[DenseModel, RunSpec]:
    """The model of a finished run, in evaluation mode on the CPU, and what it was trained as.

    A segmentor maps images, float32 (N, 3, H, W), normalised by `spec.training.data.mean` and `std`, to a dict with
    `logits` (N, C, H, W). A detector has the methods of `bcd.models.detection.detector.Detector`.

    Args:
        folder: the run's place in the store, `results/store/<hash>`.

    Raises:
        UserError: the run is not finished, or its weights are not those of its record.

    Example:
        model, spec = load_trained("results/store/0f8ae7bd370e57a6")
        label = model(image)["logits"].argmax(1)
    """
    folder = Path(folder).absolute()  # which names the run
    finished = store.record(folder)
    if finished is None:
        raise UserError(f"{folder} holds no finished run; `bcd plan --all` lists the runs of a suite")
    training = finished.spec.training
    plain = training.model.model_copy(update={"pretrained": "none"})
    model = make_task(training, Path("data")).build(plain)
    load_weights(store.checked_weights(folder), model)
    return model.eval(), finished.spec


def load_model(task: Task, model: AnyModel, folder: Path, sha256: str | None = None) -> DenseModel:
    """The trained model of a finished run, on the CPU; its weights must be those of the record, and have that hash."""
    built = task.build(model.model_copy(update={"pretrained": "none"}))
    load_weights(store.checked_weights(folder, sha256), built)
    return built
