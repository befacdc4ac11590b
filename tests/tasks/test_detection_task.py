"""Object detection and instance segmentation through the one train loop, on generated scenes and both engines."""

import importlib.util
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.smoke import folder, renamed, same, say, train

from bcd import metrics
from bcd.config.load import load_params
from bcd.config.schema.models import DetectionModel
from bcd.config.schema.suites import Variant
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.models.detection.detector import Detections, Regions, Targets
from bcd.runs import expand, store
from bcd.runs.resolve import overridden
from bcd.runs.run import Run
from bcd.tasks import make_task
from bcd.tasks.detection import coco_results, region_classes
from bcd.train import job
from bcd.train.signals import Stopped

PAIRS = {
    "detection": "detection/scenes-smoke/smoke-retinanet-from-smoke-retinanet",
    "instance": "instance/scenes-smoke/smoke-maskrcnn-from-smoke-maskrcnn",
}
TEACHERS = {
    "detection": "detection/scenes-smoke/smoke-retinanet/none/s0",
    "instance": "instance/scenes-smoke/smoke-maskrcnn/none/s0",
}
# On a finer map than its preset's, of which the smallest images have a single cell.
MGD = Variant(name="mgd", base="mgd", set={"mgd.taps": ["p2"]})
METHODS = ["none", "kd", "dkd", "fitnet", "mgd", "fgd", "pkd", "reviewkd", "bcd", "bckd"]
ENGINES = [
    "torchvision",
    pytest.param(
        "detectron2",
        marks=pytest.mark.skipif(not importlib.util.find_spec("detectron2"), reason="detectron2 is not installed"),
    ),
]


def smoke_runs(engine_name: str = "torchvision", steps: int = 3) -> dict[str, Run]:
    """The runs of all METHODS of the suite `smoke`, short, with the detectors of one engine."""
    params, suite = load_params(), load_suite("smoke")
    methods = [MGD if name == "mgd" else name for name in METHODS]
    tables = [table.model_copy(update={"methods": methods}) for table in suite.tables if table.task != "semantic"]
    detectors = {
        name: model.model_copy(update={"detection": model.detection.model_copy(update={"engine": engine_name})})
        for name, model in params.models.items()
        if isinstance(model, DetectionModel)
    }
    recipe = params.recipes["smoke-detector"].model_copy(update={"steps": steps})
    params = replace(
        params,
        models=params.models.replaced(detectors),
        recipes=params.recipes.replaced({"smoke-detector": recipe}),
    )
    return expand.suite_runs(params, suite.model_copy(update={"tables": tables}))


def of_pair(runs: dict[str, Run], task: str, methods=METHODS) -> list[Run]:
    return [runs[f"{PAIRS[task]}/{method}/s0"] for method in methods]


@pytest.mark.parametrize("task", PAIRS)
@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_learners_result_does_not_depend_on_its_company(project, engine_name, task):
    runs = smoke_runs(engine_name, steps=2)
    train(runs[TEACHERS[task]])
    wanted = of_pair(runs, task)
    together = train(*wanted)
    weights = {method: edge.weights_sha256[:6] for method, edge in together.items()}
    assert len(set(weights.values())) == len(METHODS), weights
    for run in wanted:
        shutil.rmtree(folder(together[run.method]))
    for run in wanted:
        assert same(train(run)[run.method], together[run.method]), run.method


@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_stopped_group_ends_with_the_same_bytes(project, engine_name):
    runs = smoke_runs(engine_name)
    train(runs[TEACHERS["instance"]])
    wanted = of_pair(runs, "instance", ["none", "kd", "mgd", "bcd"])
    undisturbed = train(*wanted)
    for edge in undisturbed.values():
        shutil.rmtree(folder(edge))

    def stop_after_the_first_step(text: str) -> None:
        if text.startswith("step 1/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="step 2 of 3"):
        job.run_group("smoke", wanted, stop_after_the_first_step)
    for method, edge in train(*wanted).items():
        assert same(edge, undisturbed[method]), method


@pytest.mark.parametrize("engine_name", ENGINES)
def test_rows_and_predictions_of_an_evaluation(project, engine_name):
    runs = smoke_runs(engine_name)
    edge = train(runs[TEACHERS["instance"]])["none"]
    assert set(edge.metrics) >= {"ap", "ap_mask", "ap_boundary"} and edge.evaluation.images == 6
    stem = folder(edge) / f"eval-{edge.evaluation.hash}"
    rows, names = metrics.load_rows(stem.with_suffix(".npz"))
    assert len(names) == 6 and all(len(values) == 6 for values in rows.values())
    assert {name.split(".")[0] for name in rows} == {"order", "box", "mask", "boundary"}
    with np.load(stem.with_name(stem.name + "-predictions.npz")) as archive:
        assert {name.partition(".")[2] for name in archive.files} == {"boxes", "scores", "classes", "masks"}
        assert archive["0.masks"].shape[1:] == (48, 48)
    record = store.record(folder(edge))
    assert record.macs > 0 and record.macs_input == [64, 64]


def test_a_regions_class_is_that_of_the_object_it_overlaps_by_half():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 4.9], [0, 0, 10, 5], [50, 50, 60, 60]]).float()
    target = Targets(torch.tensor([[0, 0, 10, 10], [40, 0, 50, 10]]).float(), torch.tensor([2, 1]))
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    found = region_classes(Regions([boxes, boxes[:1]]), [target, nothing], background=4)
    assert found.tolist() == [2, 4, 2, 4, 4]


def test_results_are_coco_entries():
    masks = torch.zeros(1, 6, 8, dtype=torch.uint8)
    masks[0, 1:3, 2:5] = 1
    found = Detections(torch.tensor([[2.0, 1.0, 5.0, 3.0]]), torch.tensor([0.5]), torch.tensor([3]), masks)
    (entry,) = coco_results(found, image_id=9)
    assert entry["bbox"] == [2, 1, 3, 2] and entry["image_id"] == 9 and entry["category_id"] == 3
    assert entry["segmentation"]["size"] == [6, 8]
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), masks[:0])
    assert coco_results(empty, image_id=9) == []


@pytest.mark.parametrize("task", PAIRS)
def test_only_logits_need_regions(project, task):
    run = smoke_runs()[TEACHERS[task]]
    binding = make_task(run.training, job.DATA / run.files)
    model, batch = binding.build(run.training.model).eval(), next(binding.batches(0, rank=0, world=1, workers=0))
    with torch.no_grad():
        assert binding.forward(model, batch, {"stage1", "p2"}).regions is None
        shared = binding.forward(model, batch, {"logits"})
    assert len(shared.regions.boxes) == 2
    assert shared.facts()["region_label"].shape == (sum(map(len, shared.regions.boxes)),)
    assert shared.labelled_part().regions is None


def test_padding_enters_no_term(project):
    """Terms see a mask that is false where an image was padded, at whatever stride a tap has."""
    run = smoke_runs()[TEACHERS["detection"]]
    binding = make_task(run.training, job.DATA / run.files)
    batch = next(binding.batches(0, rank=0, world=1, workers=0))
    valid = batch.facts()["valid"]
    assert batch.image.shape[2:] == (64, 64) and valid[:, :48, :48].all() and valid.sum() == 2 * 48 * 48
    assert (batch.image[~valid.unsqueeze(1).expand_as(batch.image)] == 0).all()


def test_an_engine_that_is_not_installed_is_named(project):
    if importlib.util.find_spec("detectron2"):
        pytest.skip("detectron2 is installed")
    with pytest.raises(UserError, match="detectron2.*environment.yml"):
        job.run_group("smoke", [smoke_runs("detectron2")[TEACHERS["detection"]]], say)


@pytest.mark.parametrize("setting", ["recipe.view.crop", "terms.kd.taps"])
def test_what_a_detector_lacks_is_named(project, setting):
    run = smoke_runs()[f"{PAIRS['detection']}/kd/s0"]
    train(run.teacher)
    if setting == "terms.kd.taps":
        with pytest.raises(UserError, match="p7"):
            job.run_group("smoke", [renamed(overridden(run, {setting: ["p7"]}), run.key)], say)
    else:
        with pytest.raises(UserError, match="view.crop: unknown key"):
            overridden(run, {setting: [8, 8]})
