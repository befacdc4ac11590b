"""One run as MLflow shows it: parameters, curves, metrics, tags and artifacts, and writing what is missing of them."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from bcd.config.overrides import flat_term, term_keys
from bcd.runs.record import ExportFacts, Record, RunResult
from bcd.runs.spec import RunSpec, digest
from bcd.train import history

Item = TypeVar("Item")
METRICS_PER_REQUEST, PARAMS_PER_REQUEST = 1000, 100  # MLflow's limits
LONGEST_VALUE = 500  # of a parameter, in characters; MLflow takes 6000 but shows them in a table
CHIP = "chip"  # begins the names of what an exported file was measured to be
CURVE = "train/loss"  # logged in every line of a history, so its last step says how far a run was logged


@dataclass(frozen=True)
class TrackedRun:
    """A run as far as it has come.

    key, suite  its name and its suite
    spec        what it is
    folder      its place in the store
    record      None while it trains
    result      None until it is evaluated in PyTorch
    exports     its evaluations as exported files, by the names that params/exports.yaml has for them
    tables      where it appears
    panel       PNG bytes of its predictions, if there are any
    """

    key: str
    suite: str
    spec: RunSpec
    folder: Path
    record: Record | None = None
    result: RunResult | None = None
    exports: Mapping[str, RunResult] = field(default_factory=dict)
    tables: tuple[str, ...] = ()
    panel: bytes | None = None

    @property
    def state(self) -> str:
        """Hash of everything that final metrics and tags are made of."""
        exports = {name: result.model_dump() for name, result in self.exports.items()}
        # Left out when they say nothing, so that students without exports stay as they were synced.
        edges = {"edge": self.result and self.result.model_dump()} | ({"exports": exports} if exports else {})
        return digest(edges | {"tables": self.tables})

    @property
    def results(self) -> list[RunResult]:
        """Its evaluations, PyTorch's first."""
        return [*([self.result] if self.result else []), *self.exports.values()]


def params(spec: RunSpec) -> dict[str, str]:
    """The spec as flat text, `recipe.lr` -> '0.05'; terms by name, `terms.cwd.weight` -> '10.0'.

    Lists of numbers or names stay one value.
    """
    content = spec.to_json()
    keys = term_keys([term.term for term in spec.training.terms])
    content["terms"] = dict(zip(keys, map(flat_term, spec.training.terms), strict=True))
    return {name: _shortened(value) for name, value in _flat(content, "")}


def tags(tracked: TrackedRun) -> dict[str, str]:
    """What a run can be searched and filtered by."""
    task, dataset, models, method, repetition = tracked.key.split("/")
    training, record = tracked.spec.training, tracked.record
    found = {
        "key": tracked.key, "suite": tracked.suite, "store": tracked.spec.hash, "task": task, "dataset": dataset,
        "models": models, "method": method, "repetition": repetition.removeprefix("s"),
        "seed": str(training.seed), "tables": ", ".join(tracked.tables),
        "data.sha256": tracked.spec.data_sha256,
    }  # fmt: skip
    if record:
        found |= {"code.train": record.code.train, "code.evaluate": record.code.evaluate}
        found |= {"git.commit": str(record.git.commit), "git.dirty": str(record.git.dirty)}
        found["pretrained"] = record.pretrained
    if tracked.results:  # of one training, so that each says the same of it
        result = tracked.results[0]
        data = result.data
        found |= {"code.train": result.code.train, "weights_sha256": result.weights_sha256}
        found |= {"data.origin": data.origin, "data.official": str(data.official), "data.note": data.note,
                  "data.licence": data.licence}  # fmt: skip
        if result.teacher:
            found |= {f"teacher.{name}": value for name, value in result.teacher.model_dump().items()}
    if tracked.result:
        found |= _evaluation_tags(tracked.result)
    for name, result in tracked.exports.items():
        of_file = _evaluation_tags(result) | _file_tags(result.evaluation.exported)
        found |= {f"{CHIP}.{_plain(name)}.{fact}": value for fact, value in of_file.items()}
    found["exports"] = ", ".join(tracked.exports)
    return {f"bcd.{name}": value for name, value in found.items() if value}


def final_metrics(tracked: TrackedRun, record: Record) -> dict[str, float]:
    """What a run has come to, an exported file's as `chip/<export>/<metric>`.

    An undefined metric, such as the AP of large objects where there are none, is left out: nan never equals nan.
    """
    found: dict[str, float] = {"parameters": record.parameters, "macs": record.macs}
    found |= {"train_seconds": record.train_seconds, "peak_memory_bytes": record.peak_memory_bytes}
    found |= tracked.result.metrics if tracked.result else {}
    for name, result in tracked.exports.items():
        of_file = result.metrics | _file_metrics(result.evaluation.exported)
        found |= {f"{CHIP}/{_plain(name)}/{metric}": value for metric, value in of_file.items()}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def push(client: Any, experiment: str, known: Any | None, tracked: TrackedRun) -> str:
    """Write what the MLflow run `known` lacks of `tracked`, or a new run if there is none; returns its id.

    client: an MlflowClient. Curves continue where they end, so nothing is logged twice. May be interrupted at any
    point: the tag `bcd.synced` is set last.
    """
    start, end, step_seconds = _times(tracked)
    if known is None:
        identity = {"bcd.key": tracked.key, "bcd.store": tracked.spec.hash}
        known = client.create_run(experiment, start_time=start, tags=identity, run_name=tracked.key)
        logged = -1
    else:
        logged = max((point.step for point in client.get_metric_history(known.info.run_id, CURVE)), default=-1)
    run_id = known.info.run_id
    if tracked.record is None and known.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")
    _log_facts(client, known, tracked)
    lines = [line for line in history.read(tracked.folder) if line["step"] > logged]
    last = lines[-1]["step"] if lines else 0
    points = [
        (f"train/{_plain(name)}", value, end - round(1000 * step_seconds * (last - line["step"])), round(line["step"]))
        for line in lines
        for name, value in line.items()
        if name != "step"
    ]
    _log_metrics(client, run_id, points)
    if tracked.record and tracked.results:
        _finish(client, known, tracked, tracked.record, end)
    return run_id


def _log_facts(client: Any, known: Any, tracked: TrackedRun) -> None:
    """Parameters (write-once, so only new ones) and tags."""
    from mlflow.entities import Param, RunTag

    new = [Param(k, v) for k, v in params(tracked.spec).items() if k not in known.data.params]
    for chunk in _chunks(new, PARAMS_PER_REQUEST):
        client.log_batch(known.info.run_id, params=chunk)
    changed = [RunTag(k, v) for k, v in tags(tracked).items() if known.data.tags.get(k) != v]
    client.log_batch(known.info.run_id, tags=changed)


def _log_metrics(client: Any, run_id: str, points: Iterable[tuple[str, float, int, int]]) -> None:
    from mlflow.entities import Metric

    for chunk in _chunks([Metric(*point) for point in points], METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=chunk)


def _finish(client: Any, known: Any, tracked: TrackedRun, record: Record, end: int) -> None:
    """Final metrics that are new or different, artifacts and the end."""
    run_id, before, said = known.info.run_id, known.data.metrics, tags(tracked)
    changed = {k: v for k, v in final_metrics(tracked, record).items() if before.get(k) != v}
    now = round(1000 * time.time())  # of two values at one step, MLflow shows that of the later time
    _log_metrics(client, run_id, [(name, value, now, record.steps) for name, value in changed.items()])
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


def _times(tracked: TrackedRun) -> tuple[int, int, float]:
    """Start and end in milliseconds since 1970, seconds of a step; a run that still trains ends now."""
    if tracked.record is None:
        now = round(1000 * time.time())
        return now, now, 0.0
    end = round(1000 * datetime.fromisoformat(tracked.record.finished).timestamp())
    return end - round(1000 * tracked.record.train_seconds), end, tracked.record.step_seconds


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts and of lists of dicts, with dotted names."""
    nested = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    if isinstance(value, dict) and value or nested:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _evaluation_tags(result: RunResult) -> dict[str, str]:
    evaluation = result.evaluation
    return {"code.evaluate": result.code.evaluate, "evaluation": evaluation.hash, "split": evaluation.split}


def _file_tags(facts: ExportFacts | None) -> dict[str, str]:
    """What made an exported file, "" for what it does not have."""
    if facts is None:
        return {}
    return {
        "files": ", ".join(facts.files),
        "toolchain": ", ".join(f"{package} {version}" for package, version in facts.toolchain.items()),
        "opset": str(facts.opset or ""),
        "calibration": str(facts.calibration or ""),
        "scheme": facts.scheme,
        "cpu_flags": ", ".join(facts.cpu_flags),
    }


def _file_metrics(facts: ExportFacts | None) -> dict[str, float]:
    return {"bytes": facts.bytes, "largest": facts.largest, "changed": facts.changed} if facts else {}


def _plain(name: str) -> str:
    """MLflow allows word characters, dashes, dots, blanks, colons and slashes in the name of a metric or a tag."""
    return re.sub(r"[^A-Za-z0-9_. :/-]", "_", name)


def _chunks(items: list[Item], size: int) -> Iterator[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
