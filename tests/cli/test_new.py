"""`bcd new` in a project: what it says, writes and refuses."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.project import ROOT

from bcd.cli import main
from bcd.cli.main import app
from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.data.acquire.obtain import obtain
from bcd.errors import UserError
from bcd.runs.expand import suite_runs


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A project's params, and beside them ten photographs of 64 pixels with binary masks."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    chance = np.random.default_rng(0)
    for n in range(10):
        for folder in ("photos", "masks"):
            (tmp_path / "Pond Life" / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"Pond Life/photos/{n}.jpg")
        mask = np.zeros((64, 64), np.uint8)
        mask[n : n + 30, 10:40] = 255
        Image.fromarray(mask).save(tmp_path / f"Pond Life/masks/{n}_mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(*arguments):
    app(["new", *arguments], standalone_mode=False)


def test_a_folder_becomes_a_dataset_and_a_suite(place, capsys):
    before = (place / "params/datasets.yaml").read_text()
    new("--data", "Pond Life/", "--task", "semantic")
    said = capsys.readouterr().out
    assert "found: 10 images with masks (photos and masks/*_mask.png), split by chance: 6 train, 2 val, 2 test" in said
    assert "written: the entry 'pond-life' at the end of params/datasets.yaml, and params/suites/pond-life.yaml" in said
    assert "chosen: 3 paired seeds" in said and "unknown" not in said.partition("Disk")[0]
    assert "chosen: each job computes with one thread" in said and "runs timed (" in said
    main.plan(suite="pond-life")
    hours = [
        line for line in said.splitlines() if line.startswith(("students ", "all tables ", "  a step: ", "Timed: "))
    ]
    assert len(hours) == 4 and set(hours) <= set(capsys.readouterr().out.splitlines())
    assert "snakemake --config suite=pond-life" in said
    assert (place / "params/datasets.yaml").read_text().startswith(before)
    dataset = load_params().datasets["pond-life"]
    found = obtain("pond-life", dataset, place / "data/pond-life", mirror_dir=None)  # the look at every file
    assert found.splits == {"train": 6, "val": 2, "test": 2}
    assert {run.dataset for run in suite_runs(load_params(), load_suite("pond-life")).values()} == {"pond-life"}
    with pytest.raises(UserError, match=r"params/datasets\.yaml has 'pond-life' already; give another name by --name"):
        new("--data", "Pond Life/")
    new("--data", "Pond Life", "--classes", "grass,water", "--force")
    assert load_params().datasets["pond-life"].classes == ["grass", "water"]


def test_boxes_are_for_detection(place, capsys):
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 64, "width": 64} for n in range(10)]
    things = [{"id": n, "image_id": n, "category_id": 0, "bbox": [1, 1, 40, 40], "iscrowd": 0} for n in range(10)]
    content = {"images": images, "categories": [{"id": 0, "name": "duck"}], "annotations": things}
    (place / "Pond Life/result.json").write_text(json.dumps(content))
    said = (
        "--task instance: the folder has 10 images with 10 objects, 0 of them with masks .*; write --task detection, "
        r"or mend this: result\.json: annotation 1 of the image photos/1\.jpg has no segmentation, and neither have 9 "
    )
    with pytest.raises(UserError, match=said):
        new("--data", "Pond Life", "--task", "instance")
    with pytest.raises(UserError, match="--void 7: Pond Life has objects, and no masks with values; leave it out"):
        new("--data", "Pond Life", "--void", "7")
    new("--data", "Pond Life", "--name", "ducks")
    assert "10 images with 10 objects, 0 of them with masks" in capsys.readouterr().out
    assert load_suite("ducks").tables[0].task == "detection"
    found = obtain("ducks", load_params().datasets["ducks"], place / "data/ducks", mirror_dir=None)
    assert found.splits == {"train": 6, "val": 2, "test": 2}


def test_what_is_refused_writes_nothing(place):
    before = (place / "params/datasets.yaml").read_bytes()
    for arguments, message in {
        ("--data", "nowhere"): "--data nowhere is no folder; name one",
        ("--data", "Pond Life/masks"): "Pond Life/masks holds 10 images and no photographs",
        ("--data", "Pond Life", "--task", "sementic"): "--task sementic is no task; did you mean 'semantic'",
        ("--data", "Pond Life", "--task", "detection"): "--task detection: the folder has 10 images with masks "
        ".*; write --task semantic, or add a COCO file, or labelme's files, of the objects",
        ("--data", "Pond Life", "--name", "a/b"): "--name: 'a/b' cannot be a name",
        ("--data", "Pond Life", "--name", "camvid"): "has 'camvid' already, which `bcd new` did not write",
    }.items():
        with pytest.raises(UserError, match=message):
            new(*arguments)
    assert (place / "params/datasets.yaml").read_bytes() == before and not list(place.glob("params/suites/pond*"))
