"""What is chosen for a folder: a suite that its own reader takes, cut to images, machine and weights."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from support.project import ROOT

from bcd.config.check import check
from bcd.config.load import load_params
from bcd.config.schema.data import Dataset
from bcd.config.suites import load_suite
from bcd.runs.expand import suite_runs
from bcd.scaffold import choose as module
from bcd.scaffold.choose import Machine, choose
from bcd.scaffold.look import Described, entry_of
from bcd.scaffold.write import write

CPU, GPU = Machine(0, 2), Machine(1, 16)
MASKS = {"images": "a", "masks": "b", "fractions": {"train": 0.6, "val": 0.2, "test": 0.2}}
COCO = {"images": "a", "annotations": "{split}.json"}


@pytest.fixture(scope="module")
def params():
    return load_params(ROOT / "params")


def described(task, size, train=60, other=(0, 0)):
    entry = entry_of("masks" if task == "semantic" else "coco", "own", ())
    entry |= {"classes": ["a", "b"], "splits": {"train": train, "val": 20, "test": 20}}
    entry |= {"masks": MASKS} if task == "semantic" else {"coco": COCO}
    return Described(entry, [], np.array([size] * 99 + [np.add(size, other)]), 0 if task == "semantic" else 30)


def made(tmp_path, params, task, machine, **what):
    """The choice, and the runs of its suite as the project reads them."""
    found = described(task, **what)
    choice = choose("own", task, found, machine, params, ROOT / "params")
    (tmp_path / "suites").mkdir()
    (tmp_path / "datasets.yaml").write_text("")
    write("own", found.entry | choice.entry, choice.suite, "own", tmp_path)
    dataset = check(Dataset, yaml.safe_load((tmp_path / "datasets.yaml").read_text())["own"], "own")
    own = {"own": dataset.model_copy(update={"files": "own"})}
    whole = replace(params, datasets=params.datasets.replaced(own))
    suite = load_suite("own", tmp_path)
    return choice, suite_runs(whole, suite)


@pytest.mark.parametrize("task", ["semantic", "detection", "instance"])
@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("machine", [CPU, GPU])
def test_every_choice_is_a_suite_that_runs(tmp_path, params, monkeypatch, task, pretrained, machine):
    monkeypatch.setattr(module, "weights_at_hand", lambda: pretrained)
    choice, runs = made(tmp_path, params, task, machine, size=(300, 400))
    assert {run.method for run in runs.values()} >= {"none", "cwd", "bcd"} and len(runs) > 6
    assert all((run.training.model.pretrained == "index") == pretrained for run in runs.values())
    assert all(run.runtime.gpus == machine.gpus for run in runs.values())
    assert any("random weights" in reason for reason in choice.reasons) != pretrained


def test_small_images_are_shown_whole_and_large_ones_smaller(tmp_path, params):
    choice, runs = made(tmp_path, params, "semantic", CPU, size=(100, 130))
    assert {tuple(run.training.recipe.view.crop) for run in runs.values()} == {(96, 96)}
    assert "size" not in choice.entry and choice.entry["in_memory"]


@pytest.mark.parametrize(
    ("other", "size", "resize"),
    [((0, 0), [360, 480], None), ((30, 40), [360, 480], None), ((1000, 0), None, ([360], 480))],
)
def test_photographs_of_a_camera_get_one_size_and_others_keep_their_shape(tmp_path, params, other, size, resize):
    choice, runs = made(tmp_path, params, "semantic", CPU, size=(3000, 4000), other=other)
    assert choice.entry.get("size") == size
    views = [run.training.recipe.view.resize for run in runs.values()]
    assert all((view and (view.short_sides, view.max_long_side)) == resize for view in views)
    assert ("in_memory" in choice.entry) == (size is not None)


@pytest.mark.parametrize(("train", "steps"), [(6, {150, 60}), (100, {500, 250}), (9000, {1000, 300})])
def test_steps_follow_the_number_of_images(tmp_path, params, train, steps):
    _, runs = made(tmp_path, params, "semantic", CPU, size=(300, 400), train=train)
    assert {run.training.recipe.steps for run in runs.values()} == steps


def test_detectors_see_images_smaller_and_may_find_all_objects(tmp_path, params):
    _, runs = made(tmp_path, params, "detection", CPU, size=(480, 640))
    for run in runs.values():
        assert (
            run.training.recipe.view.resize.short_sides == [224]
            and run.training.recipe.view.resize.max_long_side == 299
        )
        assert run.training.model.detection.max_detections == 60
