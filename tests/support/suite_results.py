"""The finished runs of a suite without any training: predictions are labels with noise, everything else is real."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support.project import copy_project

from bcd import metrics
from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.data import findings
from bcd.data.acquire import manifest
from bcd.data.objects.split import open_objects
from bcd.data.semantic.split import open_split
from bcd.files import sha256_file
from bcd.models.detection.detector import Detections
from bcd.runs.code import CodeHashes
from bcd.runs.expand import suite_runs
from bcd.runs.jsonfile import dump
from bcd.runs.record import (
    DataFacts,
    EvaluationFacts,
    ExportFacts,
    Git,
    Hardware,
    Latency,
    Record,
    Report,
    RunResult,
    TeacherFacts,
    Weights,
)
from bcd.runs.spec import digest
from bcd.runs.status import code_of
from bcd.tasks.detection import coco_results

# How much of the images each method gets wrong; `kd` is as good as `none`.
NOISE = {"teacher": 0.05, "none": 0.3, "bcd": 0.1, "cwd": 0.6}
FINISHED = "2026-01-02T03:04:05+00:00"


@pytest.fixture(scope="session", name="finished")
def finished_fixture(tmp_path_factory, smoke_data):
    """A project in which every run of suite `smoke` is finished; not to be changed."""
    root = copy_project(tmp_path_factory.mktemp("finished"))
    shutil.copytree(smoke_data, root / "data" / "scenes-smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        finish_suite(root)
    return root


@pytest.fixture(name="project")
def project_fixture(tmp_path, finished, monkeypatch):
    """A copy of it, as the current directory."""
    monkeypatch.chdir(copied(finished, tmp_path / "project"))
    return tmp_path / "project"


def copied(root, target):
    return shutil.copytree(root, target)


def load(name="smoke"):
    """Params and suite of the project in the current directory."""
    return load_params(), load_suite(name)


def change_weight(method):
    """Give the first term of a method of `params/methods.yaml` another weight."""
    path = Path("params/methods.yaml")
    methods = yaml.safe_load(path.read_text())
    methods[method]["terms"][0]["weight"] += 0.5
    path.write_text(yaml.safe_dump(methods))


def finish_suite(root, name="smoke"):
    """Write every run file, record, history and evaluation of suite `name` below `root/results`."""
    params, suite = load(name)
    results = {}
    for run in suite_runs(params, suite).values():
        results[run.key] = finish_run(root, suite.name, run, results.get(run.teacher.key) if run.teacher else None)
    return results


def finish_run(root, suite, run, teacher, noise=None, salt=""):
    """One finished run; `noise` is the share of wrong pixels, `salt` changes the weights' hash."""
    data = manifest.load(root / "data" / run.files)
    role = run.method if run.teacher else "teacher"
    facts = None
    if run.distilled_from:
        facts = TeacherFacts(key=teacher.key, store=teacher.store, weights_sha256=teacher.weights_sha256)
    spec = run.spec(data.sha256_of("train"), facts and facts.weights_sha256)
    folder = spec.folder(root / "results")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(dump(spec.to_json()))
    write_history(folder, range(1, 3))
    finished = record(spec, digest({"weights": run.key_in_pytorch, "salt": salt}) * 4)
    (folder / "record.json").write_text(dump(finished))
    report = evaluate(root, run, folder, NOISE.get(role, NOISE["none"]) if noise is None else noise)
    if run.export:  # tables and MLflow have its time from there
        (folder / f"eval-{report.hash}.json").write_text(dump(report))
    result = RunResult(
        key=run.key, task=run.training.task, dataset=run.dataset, model=run.model, method=run.method,
        repetition=run.repetition, seed=run.training.seed, fingerprint=run.fingerprint, store=spec.hash,
        data=DataFacts(
            manifest_sha256=data.sha256, sha256=data.sha256_of("train"), origin=data.origin, official=data.official,
            note=data.note, licence=data.licence,
            warnings=findings.warnings(data.check, run.training.task, ("train", run.evaluation.split)),
        ),
        teacher=facts, pretrained=finished.pretrained, weights_sha256=finished.weights.sha256,
        parameters=finished.parameters, macs=finished.macs, macs_input=finished.macs_input,
        code=CodeHashes(train=finished.code.train, evaluate=report.code),
        evaluation=EvaluationFacts(**report.model_dump(include=set(EvaluationFacts.model_fields))),
        metrics=report.metrics,
    ).sealed()  # fmt: skip
    path = run.file(suite, root / "results")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump(result))
    return result


def write_history(folder, steps):
    lines = [{"step": s, "lr": 0.1 / s, "loss": 2.0 / s, "task": 1.5 / s, "cwd": 0.5 / s} for s in steps]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def record(spec, weights_sha256):
    return Record(
        spec=spec, code=code_of(spec.training), git=Git(commit="c0ffee", dirty=False), versions={},
        hardware=Hardware(cpu="none", cores=1, gpu=None, cpu_capability="AVX2"), finished=FINISHED,
        steps=2, train_seconds=4.0, step_seconds=2.0, resumes=0, threads=1, pretrained="none",
        group_size=1, setup_seconds=1.0, group_seconds=5.0,
        weights=Weights(file="model.safetensors", bytes=1, sha256=weights_sha256),
        parameters=6128, macs=842880, macs_input=[40, 32], peak_memory_bytes=1000, device="cpu", world=1,
    )  # fmt: skip


def evaluate(root, run, folder, noise):
    """Rows and predictions of the test split, drawn from the run's seed, the same draw for all methods of a pair."""
    draw_from = semantic_predictions if run.training.task == "semantic" else object_predictions
    rows, names, predictions = draw_from(root, run, noise)
    stem = f"eval-{run.evaluation_hash}"
    metrics.save_rows(folder / f"{stem}.npz", rows, names)
    np.savez_compressed(folder / f"{stem}-predictions.npz", **predictions)
    for name in exported(run.export).files if run.export else ():
        (folder / name).touch()
    return Report(
        hash=run.evaluation_hash, split=run.evaluation.split, images=len(names),
        data_sha256=manifest.load(root / "data" / run.files).sha256_of(run.evaluation.split),
        rows_sha256=sha256_file(folder / f"{stem}.npz"),
        predictions_sha256=sha256_file(folder / f"{stem}-predictions.npz"),
        metrics=metrics.summariser(run.training.task)(rows),
        code=code_of(run.training, run.evaluation).evaluate, seconds=1.0,
        exported=exported(run.export) if run.export else None, latency=latency(run.export) if run.export else None,
    )  # fmt: skip


def latency(name):
    """What is said of the time of such a file."""
    ratio = 0.6 if "int8" in name else 0.8
    return Latency(ratio=ratio, low=ratio - 0.1, high=ratio + 0.1, rounds=20, pytorch_seconds=0.01)


def exported(name):
    """What is said of an exported file that nobody made."""
    int8 = "int8" in name
    return ExportFacts(
        files={f"export-{digest(name)}.onnx": "0" * 64}, bytes=30000 if int8 else 90000,
        toolchain={"onnx": "1.2", "onnxruntime": "3.4"}, opset=20, cpu_flags=["avx2"], calibration=4 if int8 else 0,
        scheme="QDQ" if int8 else "", largest=0.5 if int8 else 1e-6, changed=0.25 if int8 else 0.0,
    )  # fmt: skip


def object_predictions(root, run, noise):
    """The annotated objects, boxes moved and scores lowered by noise."""
    masks = run.training.task == "instance"
    split = open_objects(root / "data" / run.files, run.training.data, run.evaluation.split, masks=masks)
    draw = np.random.default_rng(run.training.seed)
    results, predictions, names = [], {}, []
    for i in range(len(split)):
        image, truth, name = split.read(i)
        k, side = len(truth.boxes), image.shape[0]
        boxes = np.clip(truth.boxes + noise * draw.normal(0, 20, (k, 4)), 0, side - 1)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        found = {"boxes": boxes, "scores": 1 - noise * draw.random(k), "classes": truth.classes}
        if masks:
            found["masks"] = np.zeros((k, *image.shape[:2]), np.uint8)
            for one, (left, top, right, bottom) in zip(found["masks"], boxes.round().astype(int), strict=True):
                one[top:bottom, left:right] = 1
        predictions |= {f"{i}.{part}": values for part, values in found.items()}
        tensors = {part: torch.from_numpy(np.asarray(values)) for part, values in found.items()}
        results += coco_results(Detections(**tensors), split.image_ids[i])
        names.append(name)
    kinds = ("box", "mask", "boundary") if masks else ("box",)
    return metrics.detection_rows(split.truth, results, split.image_ids, kinds), names, predictions


def semantic_predictions(root, run, noise):
    split = open_split(root / "data" / run.files, run.training.data, run.evaluation.split)
    draw = np.random.default_rng(run.training.seed)
    classes = len(run.training.data.classes)
    counts, names, predictions = [], [], {}
    for i in range(len(split)):
        _, label, name = split.read(i)
        wrong = draw.random(label.shape) < noise
        predictions[str(i)] = np.where(wrong, draw.integers(0, classes, label.shape), label).astype(np.uint8)
        counts.append(metrics.image_counts(predictions[str(i)], label, classes=classes))
        names.append(name)
    return metrics.stack(counts), names, predictions
