"""One run as MLflow shows it: parameters, metrics, tags and datasets. Pure; `bcd.tracking.push` writes them."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bcd.config.overrides import flat_term, term_keys
from bcd.config.schema.data import TRAIN
from bcd.runs.record import ExportFacts, Latency, Record, RunResult
from bcd.runs.spec import RunSpec, digest
from bcd.tracking.naming import RunName

LAYOUT = "2"  # of an MLflow run: one of another layout is made anew, as MLflow can take nothing back that was logged
LONGEST_VALUE = 500  # of a parameter, in characters; MLflow takes 6000 but shows them in a table
CHIP = "chip"  # begins the names of what an exported file was measured to be
COSTS = ("parameters", "macs", "train_seconds", "peak_memory_bytes")
DIGEST = 16  # digits that MLflow shows of the hash of a dataset


@dataclass(frozen=True)
class TrackedRun:
    """A run as far as it has come.

    key, suite  its name and its suite
    spec        what it is
    folder      its place in the store
    record      None while it trains
    result      None until it is evaluated in PyTorch
    exports     its evaluations as exported files, by the names that params/exports.yaml has for them
    latency     of such files, by the same names
    against     its teacher's values and the gap closed, as of `bcd.tracking.compare.against_teacher`
    tables      where it appears
    files       the folder of its data
    panel       PNG bytes of its predictions, if there are any
    """

    key: str
    suite: str
    spec: RunSpec
    folder: Path
    record: Record | None = None
    result: RunResult | None = None
    exports: Mapping[str, RunResult] = field(default_factory=dict)
    latency: Mapping[str, Latency] = field(default_factory=dict)
    against: Mapping[str, float] = field(default_factory=dict)
    tables: tuple[str, ...] = ()
    files: str = ""
    panel: bytes | None = None

    @property
    def state(self) -> str:
        """Hash of everything that final metrics, tags and datasets are made of."""
        exports = {name: result.model_dump() for name, result in self.exports.items()}
        edges = {"edge": self.result and self.result.model_dump(), "exports": exports, "against": dict(self.against)}
        # Runs that were pushed before exported files were models are pushed again.
        beside = {"models": "of MLflow"} if self.exports else {}
        if self.latency:
            beside["latency"] = digest({name: latency.model_dump() for name, latency in self.latency.items()})
        return digest(edges | beside | {"tables": self.tables, "files": self.files, "layout": LAYOUT})

    @property
    def name(self) -> RunName:
        """Its key in parts."""
        return RunName.of(self.key)

    @property
    def results(self) -> list[RunResult]:
        """Its evaluations, PyTorch's first."""
        return [*([self.result] if self.result else []), *self.exports.values()]


def params(tracked: TrackedRun) -> dict[str, str]:
    """What a run is called by, and its spec as flat text: `recipe.lr` -> '0.05', `terms.cwd.weight` -> '10.0'.

    Lists of numbers or names stay one value.
    """
    name, spec = tracked.name, tracked.spec
    labelled = spec.training.data.labelled
    called = name.params | {"repetition": name.repetition, "labels": str(labelled or "all"), "role": role(name)}
    content = spec.to_json()
    keys = term_keys([term.term for term in spec.training.terms])
    content["terms"] = dict(zip(keys, map(flat_term, spec.training.terms), strict=True))
    return called | {name: _shortened(value) for name, value in _flat(content, "")}


def role(name: RunName) -> str:
    """Which kind of model it is: `student` or `teacher`; their means over seeds have the role `mean`."""
    return "teacher" if name.is_teacher else "student"


def tags(tracked: TrackedRun) -> dict[str, str]:
    """What a run can be searched and filtered by."""
    name, training, record = tracked.name, tracked.spec.training, tracked.record
    found = {
        "key": tracked.key, "suite": tracked.suite, "store": tracked.spec.hash, "task": name.task,
        "dataset": name.dataset, "models": name.pair, "method": name.method, "repetition": name.repetition,
        "seed": str(training.seed), "tables": ", ".join(tracked.tables), "role": role(name),
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
    for export, result in tracked.exports.items():
        of_file = _evaluation_tags(result) | _file_tags(result.evaluation.exported)
        found |= {f"{CHIP}.{plain(export)}.{fact}": value for fact, value in of_file.items()}
    found["exports"] = ", ".join(tracked.exports)
    commit = record.git.commit if record else None
    return {f"bcd.{tag}": value for tag, value in found.items() if value} | _source(tracked, commit)


def final_metrics(tracked: TrackedRun, record: Record) -> dict[str, float]:
    """What a run has come to, an exported file's as `chip/<export>/<metric>`, and how far that is from its teacher.

    An undefined metric, such as the AP of large objects where there are none, is left out: nan never equals nan.
    """
    found: dict[str, float] = {cost: getattr(record, cost) for cost in COSTS}
    found |= (tracked.result.metrics if tracked.result else {}) | dict(tracked.against)
    for name, result in tracked.exports.items():
        of_file = result.metrics | _file_metrics(result.evaluation.exported) | _time(tracked.latency.get(name))
        found |= {f"{CHIP}/{plain(name)}/{metric}": value for metric, value in of_file.items()}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


@dataclass(frozen=True)
class UsedData:
    """A split that a run was trained or evaluated on, as MLflow shows a dataset."""

    name: str
    context: str
    digest: str
    source: str
    images: int
    labelled: int


def datasets(tracked: TrackedRun) -> list[UsedData]:
    """The training split of an evaluated run and the split of its evaluation, where their hashes are known."""
    if not tracked.results:
        return []
    result, data = tracked.results[0], tracked.spec.training.data
    evaluation = result.evaluation
    images = min(data.images or data.splits[TRAIN], data.splits[TRAIN])
    trained = (TRAIN, "training", result.data.sha256, images, data.labelled or images)
    evaluated = (evaluation.split, "evaluation", evaluation.data_sha256, evaluation.images, evaluation.images)
    return [
        UsedData(f"{result.dataset}/{split}", context, sha256[:DIGEST], f"data/{tracked.files}", count, labelled)
        for split, context, sha256, count, labelled in (trained, evaluated)
        if sha256
    ]


def times(tracked: TrackedRun) -> tuple[int, int, float]:
    """Start and end in milliseconds since 1970, seconds of a step; a run that still trains ends now."""
    if tracked.record is None:
        now = round(1000 * time.time())
        return now, now, 0.0
    end = round(1000 * datetime.fromisoformat(tracked.record.finished).timestamp())
    return end - round(1000 * tracked.record.train_seconds), end, tracked.record.step_seconds


def plain(name: str) -> str:
    """MLflow allows word characters, dashes, dots, blanks, colons and slashes in the name of a metric or a tag."""
    return re.sub(r"[^A-Za-z0-9_. :/-]", "_", name)


def _source(tracked: TrackedRun, commit: str | None) -> dict[str, str]:
    """What MLflow shows in the columns Source and Version: the command that makes the run, and the code's commit."""
    base, _, settings = tracked.key.partition("?")
    options = "".join(f" --set {one}" for one in settings.split(",") if one)
    command = f"bcd train --suite {tracked.suite} {base}{options}"
    # Of the type LOCAL, MLflow shows nothing but what stands behind the last slash.
    found = {"name": command, "type": "JOB"} | ({"git.commit": commit} if commit else {})
    return {f"mlflow.source.{part}": value for part, value in found.items()}


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


def _time(latency: Latency | None) -> dict[str, float]:
    """Of the processor, as a ratio to PyTorch's."""
    return {"time": latency.ratio} if latency else {}
