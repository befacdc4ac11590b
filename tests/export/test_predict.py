"""`bcd predict`: what is in the files is what the model says."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import smoke
from support.exports import MASKS, run_of, say
from support.project import run

from bcd.config.schema.exports import Export
from bcd.errors import UserError
from bcd.export import predict
from bcd.export.build import export
from bcd.export.runtime import open_file
from bcd.metrics import load_arrays

BCD = str(Path(sys.executable).parent / "bcd")


def quiet(_what: str, _done: int, _total: int | None) -> None:
    """Progress is not under test."""


def test_class_maps_of_a_run_are_those_of_its_evaluation(segmentor, trained, tmp_path):
    done = predict.predict_folder(
        predict.of_run(segmentor), segmentor.root / "images" / "test", tmp_path / "out", progress=quiet
    )
    recorded = load_arrays(next(segmentor.folder.glob("eval-*-predictions.npz")))
    assert done == len(recorded) > 0
    for index, ids in recorded.items():
        label = Image.open(tmp_path / "out" / "labels" / f"{int(index):05d}.png")
        assert (np.asarray(label) == ids).all() and label.mode == "P"
        overlay = Image.open(tmp_path / "out" / "overlays" / f"{int(index):05d}.png")
        assert overlay.size == label.size and overlay.mode == "RGB"


def test_an_image_of_another_size_gets_a_map_of_its_own_size(segmentor, tmp_path):
    pytest.importorskip("onnxruntime")
    file = export(segmentor, Export(format="onnx"), tmp_path, say=say)
    photographs = tmp_path / "photographs" / "deep"
    photographs.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 77, 3), np.uint8)).save(photographs / "a.jpg")
    predict.predict_folder(predict.of_file(open_file(file)), photographs.parent, tmp_path / "out", progress=quiet)
    assert Image.open(tmp_path / "out" / "labels" / "deep" / "a.png").size == (77, 50)


def test_masks_of_a_run_are_those_that_its_detector_finds(trained, tmp_path):
    found = run_of(trained, MASKS)
    images = found.root / "images" / "test"
    predict.predict_folder(predict.of_run(found), images, tmp_path / "out", progress=quiet)
    coco = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == sorted(path.name for path in images.iterdir())
    assert [one["name"] for one in coco["categories"]] == found.spec.training.data.classes
    recorded = load_arrays(next(found.folder.glob("eval-*-predictions.npz")))
    assert len(recorded["0.scores"]) > 0
    own = [entry for entry in coco["annotations"] if entry["image_id"] == 1]
    assert [entry["score"] for entry in own] == pytest.approx(recorded["0.scores"].tolist())
    assert [entry["category_id"] - 1 for entry in own] == recorded["0.classes"].tolist()
    from pycocotools import mask

    assert (mask.decode(own[0]["segmentation"]) == recorded["0.masks"][0]).all()
    assert ((np.asarray(Image.open(tmp_path / "out" / "masks" / "00000.png")) == 1) == recorded["0.masks"][0]).all()


def test_what_cannot_be_predicted_is_told_in_a_sentence(segmentor, tmp_path):
    predictor = predict.of_run(segmentor)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").write_bytes(b"no image")
    (tmp_path / "twice").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (48, 48)).save(tmp_path / "twice" / name)
    for folder, out, sentence in (
        ("none", "out", "none is no folder"),
        ("empty", "out", "empty holds no images"),
        ("full", "out", "a.png is not a readable image"),
        ("twice", "out", "would both become a.png"),
        ("twice/a.png", "out", "is no folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            predict.predict_folder(predictor, tmp_path / folder, tmp_path / out, progress=quiet)
    (tmp_path / "twice" / "a.png").unlink()
    with pytest.raises(UserError, match="--out .*full: is there and not empty"):
        predict.predict_folder(predictor, tmp_path / "twice", tmp_path / "full", progress=quiet)


def test_what_was_predicted_into_the_folder_is_no_image_of_it(segmentor, tmp_path):
    Image.new("RGB", (48, 48)).save(tmp_path / "a.png")
    predictor = predict.of_run(segmentor)
    for force in (False, True):
        assert predict.predict_folder(predictor, tmp_path, tmp_path / "seen", force=force, progress=quiet) == 1
    with pytest.raises(UserError, match="holds no images but those of --out"):
        predict.predict_folder(predictor, tmp_path / "seen" / "labels", tmp_path / "seen", force=True, progress=quiet)


def test_the_commands(segmentor, trained, tmp_path):
    """From a run's folder to a file, and from the file to class maps; a run that is not finished; another suite's."""
    pytest.importorskip("onnxruntime")
    file = tmp_path / "student.onnx"
    said = run(BCD, "export", str(segmentor.folder), "--out", str(file), cwd=trained).stdout
    assert f"{file}: {file.stat().st_size} bytes" in said and "largest difference to PyTorch" in said
    assert open_file(file).metadata.key == smoke.TEACHER
    said = run(BCD, "predict", str(file), "data/scenes-smoke/images/test", "--out", str(tmp_path / "out"), cwd=trained)
    assert "6 images" in said.stdout and len(list((tmp_path / "out" / "labels").iterdir())) == 6
    for arguments, sentence in (
        ((f"{smoke.PAIR}/kd/s0", "--suite", "smoke"), "is missing, not finished; run `bcd train --suite smoke"),
        ((smoke.TEACHER, "--suite", "scenes"), "suite scenes: .* is not defined"),
        (("results",), "holds no finished run"),
    ):
        refused = run(BCD, "export", *arguments, cwd=trained, check=False)
        assert refused.returncode == 2 and re.search(sentence, refused.stdout), refused.stdout
