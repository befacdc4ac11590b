"""Exported files as MLflow's models: the column Models of a student's run leads to them, with their signatures.

The files themselves stay in the store, where the tag `bcd.file` points; MLflow would hold second copies.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bcd.export.sidecar import Sidecar, sidecar_path
from bcd.runs.jsonfile import read_as
from bcd.runs.record import ExportFacts, RunResult
from bcd.tracking.mlflow_run import TrackedRun

TAG = "bcd.state"  # the form and the hashes of the files that a model of MLflow stands for


def push_models(client: Any, run_id: str, experiment: str, tracked: TrackedRun) -> None:
    """Give the run a model for each of its exported forms, and take away those that it has no more.

    client: an MlflowClient. May be interrupted at any point: a model counts once it is ready.
    """
    known = {model.tags.get(TAG): model for model in _models(client, run_id, experiment)}
    wanted = {" ".join([form, *sorted(facts.files.values())]): (form, facts) for form, facts in _forms(tracked)}
    for state, model in known.items():
        if state not in wanted or model.status.name != "READY":
            client.delete_logged_model(model.model_id)
    for state, (form, facts) in wanted.items():
        if state not in known or known[state].status.name != "READY":
            _create(client, run_id, experiment, tracked, form, facts, state)


def _models(client: Any, run_id: str, experiment: str) -> list[Any]:
    return list(client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"))


def _forms(tracked: TrackedRun) -> list[tuple[str, ExportFacts]]:
    def facts(result: RunResult) -> ExportFacts | None:
        return result.evaluation.exported

    return [(form, found) for form, result in tracked.exports.items() if (found := facts(result))]


def _create(
    client: Any, run_id: str, experiment: str, tracked: TrackedRun, form: str, facts: ExportFacts, state: str
) -> None:
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    file = tracked.folder / next(iter(facts.files))
    made = client.create_logged_model(
        experiment,
        name=f"{tracked.name.method}-s{tracked.name.repetition}-{form}",
        source_run_id=run_id,
        tags={TAG: state, "bcd.export": form, "bcd.key": tracked.key, "bcd.file": file.as_posix()},
        params={"bytes": str(facts.bytes), "opset": str(facts.opset), "scheme": facts.scheme or "float32"},
        model_type=form,
    )
    if sidecar_path(file).exists():
        with tempfile.TemporaryDirectory() as folder:
            _describe(read_as(Sidecar, sidecar_path(file)), made, run_id).save(str(Path(folder) / "MLmodel"))
            client.log_model_artifacts(made.model_id, folder)
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)


def _describe(sidecar: Sidecar, made: Any, run_id: str) -> Any:
    """MLflow's description of a file: float32 images (N, 3, H, W) in, and a segmentor's logits (N, classes, H, W) out.

    -1 stands for what may differ. What a detector's outputs are is said by `bcd.export.decode`.
    """
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    said = sidecar.metadata
    size = (-1, -1) if said.dynamic else (said.view.height, said.view.width)
    float32 = np.dtype("float32")
    images = Schema([TensorSpec(float32, (-1, 3, *size), "image")])
    logits = Schema([TensorSpec(float32, (-1, len(said.classes), *size), name) for name in said.outputs])
    signature = ModelSignature(images, None if said.decoding else logits)
    return Model(made.artifact_location, run_id, signature=signature, model_id=made.model_id, flavors={})
