"""The finished runs of a suite without any training: predictions are labels with noise, everything else is real."""

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
from bcd.data.acquire import manifest
from bcd.data.objects.split import open_objects
from bcd.data.semantic.split import open_split
from bcd.files import sha256_file
from bcd.models.detection import Detections
from bcd.runs import store
from bcd.runs.expand import suite_runs
from bcd.runs.record import code_fingerprints, run_json
from bcd.runs.run import digest, run_file, spec_of
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
    edges = {}
    for run in suite_runs(params, suite).values():
        edges[run.key] = finish_run(root, suite.name, run, edges.get(run.teacher.key) if run.teacher else None)
    return edges


def finish_run(root, suite, run, teacher, noise=None, salt=""):
    """One finished run; `noise` is the share of wrong pixels, `salt` changes the weights' hash."""
    data = manifest.load(root / "data" / run.files)
    role = run.method if run.teacher else "teacher"
    facts = None
    if run.config["terms"]:
        facts = {name: teacher[name] for name in ("key", "store", "weights_sha256")}
    spec = spec_of(run, manifest_sha256=data.sha256, teacher_weights_sha256=facts and facts["weights_sha256"])
    folder = store.entry(spec, root / "results")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(store.dump(spec))
    write_history(folder, range(1, 3))
    finished = record(spec, digest({"weights": run.key, "salt": salt}) * 4, code_fingerprints(run.config))
    (folder / "record.json").write_text(store.dump(finished))
    evaluation = evaluate(root, run, folder, NOISE.get(role, NOISE["none"]) if noise is None else noise)
    described = {
        "manifest_sha256": data.sha256, "origin": data.origin, "official": data.official,
        "note": data.note, "licence": data.licence,
    }  # fmt: skip
    edge = run_json(run, digest(spec), finished, evaluation, described, facts)
    path = run_file(suite, run, root / "results")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(store.dump(edge))
    return edge


def write_history(folder, steps):
    lines = [{"step": s, "lr": 0.1 / s, "loss": 2.0 / s, "task": 1.5 / s, "cwd": 0.5 / s} for s in steps]
    (folder / "history.jsonl").write_text("".join(store.json.dumps(line) + "\n" for line in lines))


def record(spec, weights_sha256, code):
    return {
        "spec": spec, "code": code, "finished": FINISHED, "git": {"commit": "c0ffee", "dirty": False},
        "weights": {"sha256": weights_sha256}, "pretrained": "none", "parameters": 6128, "macs": 842880,
        "macs_input": [40, 32],
        "steps": 2, "train_seconds": 4.0, "step_seconds": 2.0, "peak_memory_bytes": 1000,
    }  # fmt: skip


def evaluate(root, run, folder, noise):
    """Rows and predictions of the test split, drawn from the run's seed, the same draw for all methods of a pair."""
    draw_from = semantic_predictions if run.config["task"] == "semantic" else object_predictions
    rows, names, predictions = draw_from(root, run, noise)
    stem = f"eval-{digest(run.evaluation)}"
    metrics.save_rows(folder / f"{stem}.npz", rows, names)
    np.savez_compressed(folder / f"{stem}-predictions.npz", **predictions)
    return {
        "hash": digest(run.evaluation), "split": run.evaluation["split"], "images": len(names),
        "rows_sha256": sha256_file(folder / f"{stem}.npz"),
        "metrics": metrics.summariser(run.config["task"])(rows), "code": code_fingerprints(run.config)["evaluate"],
    }  # fmt: skip


def object_predictions(root, run, noise):
    """The annotated objects, boxes moved and scores lowered by noise."""
    masks = run.config["task"] == "instance"
    split = open_objects(root / "data" / run.files, run.config["data"], run.evaluation["split"], masks=masks)
    draw = np.random.default_rng(run.config["seed"])
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
    split = open_split(root / "data" / run.files, run.config["data"], run.evaluation["split"])
    draw = np.random.default_rng(run.config["seed"])
    classes = len(run.config["data"]["classes"])
    counts, names, predictions = [], [], {}
    for i in range(len(split)):
        _, label, name = split.read(i)
        wrong = draw.random(label.shape) < noise
        predictions[str(i)] = np.where(wrong, draw.integers(0, classes, label.shape), label).astype(np.uint8)
        counts.append(metrics.image_counts(predictions[str(i)], label, classes=classes))
        names.append(name)
    return metrics.stack(counts), names, predictions
