"""Writing what MLflow lacks of a run: parameters, curves, final metrics, tags, datasets and artifacts."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bcd.runs.record import Record
from bcd.tracking.mlflow_run import CHIP, LAYOUT, TrackedRun, datasets, final_metrics, params, plain, tags, times
from bcd.tracking.models import push_models
from bcd.train import history

Item = TypeVar("Item")
METRICS_PER_REQUEST, PARAMS_PER_REQUEST = 1000, 100  # MLflow's limits
CURVE = "train/loss"  # logged in every line of a history, so its last step says how far a run was logged
DERIVED = ("teacher/", "gap_closed/")  # begin the names of metrics that may become undefined, as other runs change


def push(client: Any, experiment: str, known: Any | None, tracked: TrackedRun) -> str:
    """Write what the MLflow run `known` lacks of `tracked`, or a new run if there is none; returns its id.

    client: an MlflowClient. Curves continue where they end, so nothing is logged twice. May be interrupted at any
    point: the tag `bcd.synced` is set last.
    """
    start, end, step_seconds = times(tracked)
    if known is None:
        identity = {"bcd.key": tracked.key, "bcd.store": tracked.spec.hash, "bcd.layout": LAYOUT}
        known = client.create_run(experiment, start_time=start, tags=identity, run_name=tracked.name.shown)
        logged = -1
    else:
        logged = max((point.step for point in client.get_metric_history(known.info.run_id, CURVE)), default=-1)
    run_id = known.info.run_id
    if tracked.record is None and known.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")
    log_params(client, run_id, {k: v for k, v in params(tracked).items() if k not in known.data.params})
    set_tags(client, known, tags(tracked))
    lines = [line for line in history.read(tracked.folder) if line["step"] > logged]
    last = lines[-1]["step"] if lines else 0
    points = [
        (f"train/{plain(name)}", value, end - round(1000 * step_seconds * (last - line["step"])), round(line["step"]))
        for line in lines
        for name, value in line.items()
        if name != "step"
    ]
    log_metrics(client, run_id, points + _validation(client, run_id, tracked.folder, end))
    if tracked.record and tracked.results:
        _finish(client, known, tracked, tracked.record, end)
    return str(run_id)


def _validation(client: Any, run_id: str, folder: Path, end: int) -> list[tuple[str, float, int, int]]:
    """Metrics on validation images while it trained, of the steps that the MLflow run has none of."""
    lines = history.read(folder, history.VALIDATION)
    names = {name for line in lines for name in line if name != "step"}
    logged = {name: {p.step for p in client.get_metric_history(run_id, f"val/{plain(name)}")} for name in names}
    return [
        (f"val/{plain(name)}", line[name], end, round(line["step"]))
        for line in lines
        for name in sorted(names & line.keys())
        if line["step"] not in logged[name]
    ]


def log_params(client: Any, run_id: str, values: Mapping[str, str]) -> None:
    """Log parameters, which can be written once only."""
    from mlflow.entities import Param

    for chunk in _chunks([Param(*item) for item in values.items()], PARAMS_PER_REQUEST):
        client.log_batch(run_id, params=chunk)


def set_tags(client: Any, run: Any, values: Mapping[str, str]) -> None:
    """Set those tags that the MLflow run `run` does not have with that value."""
    from mlflow.entities import RunTag

    if changed := [RunTag(k, v) for k, v in values.items() if run.data.tags.get(k) != v]:
        client.log_batch(run.info.run_id, tags=changed)


def log_metrics(client: Any, run_id: str, points: Iterable[tuple[str, float, int, int]]) -> None:
    """Log points: name, value, milliseconds since 1970, step."""
    from mlflow.entities import Metric

    for chunk in _chunks([Metric(*point) for point in points], METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=chunk)


def log_finals(client: Any, run: Any, values: Mapping[str, float]) -> None:
    """Log metrics that are new or different at step 0, where MLflow draws bars: a later step would be a curve's."""
    now = round(1000 * time.time())  # of two values at one step, MLflow shows that of the later time
    changed = {name: value for name, value in values.items() if run.data.metrics.get(name) != value}
    log_metrics(client, run.info.run_id, [(name, value, now, 0) for name, value in changed.items()])


def _finish(client: Any, known: Any, tracked: TrackedRun, record: Record, end: int) -> None:
    """Final metrics that are new or different, datasets, artifacts and the end."""
    run_id, before, said = known.info.run_id, known.data.metrics, tags(tracked)
    finals = final_metrics(tracked, record)
    undefined = {k for k, v in before.items() if k.startswith(DERIVED) and k not in finals and not math.isnan(v)}
    log_finals(client, known, finals | dict.fromkeys(undefined, math.nan))
    _log_datasets(client, known, tracked)
    push_models(client, run_id, known.info.experiment_id, tracked)
    client.log_artifact(run_id, str(tracked.folder / "record.json"))
    if tracked.panel:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "predictions.png"
            path.write_bytes(tracked.panel)
            client.log_artifact(run_id, str(path))
    for name in known.data.tags:  # MLflow deletes no metric, so `bcd.exports` says which exports still count
        if name.startswith(("bcd.exports", f"bcd.{CHIP}.")) and name not in said:
            client.delete_tag(run_id, name)
    client.set_terminated(run_id, "FINISHED", end)
    client.set_tag(run_id, "bcd.synced", tracked.state)


def _log_datasets(client: Any, known: Any, tracked: TrackedRun) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    shown = {(one.dataset.name, one.dataset.digest) for one in known.inputs.dataset_inputs if one.dataset}
    new = [
        DatasetInput(
            Dataset(
                data.name, data.digest, source_type="local", source=json.dumps({"uri": data.source}),
                profile=json.dumps({"images": data.images, "labelled": data.labelled}),
            ),
            [InputTag("mlflow.data.context", data.context)],
        )
        for data in datasets(tracked)
        if (data.name, data.digest) not in shown
    ]  # fmt: skip
    if new:
        client.log_inputs(run_id=known.info.run_id, datasets=new)


def _chunks(items: list[Item], size: int) -> Iterator[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
