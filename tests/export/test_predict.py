"""`bcd predict`: what is in the files is what the model says."""

import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import smoke
from support.exports import MASKS, run_of, say
from support.project import kill, run

from bcd.cli.main import app
from bcd.config.schema.exports import Export
from bcd.errors import UserError
from bcd.export import journal, predict
from bcd.export.place import export_to as export
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
    assert done == (len(recorded), len(recorded)) and recorded
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


def photographs(folder: Path, *names: str) -> Path:
    """A folder of real images, which differ."""
    folder.mkdir()
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def counted(predictor: predict.Predictor, fatal: int = 0) -> tuple[predict.Predictor, list[int]]:
    """The predictor, with a list that grows with each image; at the `fatal`-th the process kills itself."""
    seen: list[int] = []

    def predicted(image: np.ndarray):
        seen.append(1)
        if len(seen) == fatal:
            kill(os.getpid())
        return predictor.predict(image)

    return replace(predictor, predict=predicted), seen


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_damaged_image_is_passed_by_and_named_at_the_end(segmentor, tmp_path):
    folder, out = photographs(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out"
    predictor, seen = counted(predict.of_run(segmentor))
    predict.predict_folder(predictor, folder, tmp_path / "whole", progress=quiet)
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[:200])
    counts: list[tuple[int, int | None]] = []
    for tries in (1, 2):
        seen.clear()
        with pytest.raises(UserError, match="2 of 3 images are predicted into .*out; .*b.png is not a readable image"):
            predict.predict_folder(
                predictor, folder, out, progress=lambda _what, done, total: counts.append((done, total))
            )
        assert counts[-1] == (3, 3) and len(seen) == (2 if tries == 1 else 0)
    (folder / "b.png").write_bytes(whole)
    assert predict.predict_folder(predictor, folder, out, progress=quiet) == (3, 1) and len(seen) == 1
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.parametrize("key", [smoke.TEACHER, MASKS])
def test_the_same_call_does_what_is_new_changed_or_gone_and_else_nothing(trained, tmp_path, key):
    predictor = predict.of_run(run_of(trained, key))
    folder, out = photographs(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out"
    assert predict.predict_folder(predictor, folder, out, progress=quiet) == (3, 3)
    before = content(out)
    assert predict.predict_folder(predictor, folder, out, progress=quiet) == (3, 0)
    assert content(out) == before
    (out / "overlays" / "a.png").unlink()
    Image.new("RGB", (48, 48), "red").save(folder / "b.png")
    Image.new("RGB", (48, 48), "blue").save(folder / "d.png")
    assert predict.predict_folder(predictor, folder, out, progress=quiet) == (4, 3)
    whole = tmp_path / "whole"
    predict.predict_folder(predictor, folder, whole, progress=quiet)
    assert content(out) == content(whole)


@pytest.mark.parametrize("key", [smoke.TEACHER, MASKS])
def test_what_was_killed_the_same_call_continues(trained, tmp_path, in_child, key):
    predictor = predict.of_run(run_of(trained, key))
    folder, out = photographs(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out"
    predict.predict_folder(predictor, folder, tmp_path / "whole", progress=quiet)
    fatal, _ = counted(predictor, fatal=3)
    _, wait = in_child(lambda: predict.predict_folder(fatal, folder, out, progress=quiet))
    assert wait() == -signal.SIGKILL
    with (out / journal.NAME).open("a") as file:
        file.write('{"image": "c.p')  # as a kill in the middle of a line would leave it
    predictor, seen = counted(predictor)
    assert predict.predict_folder(predictor, folder, out, progress=quiet) == (3, 1) and len(seen) == 1
    assert content(out) == content(tmp_path / "whole")


def test_what_another_model_or_folder_has_begun_is_not_continued(segmentor, tmp_path):
    folder, other = photographs(tmp_path / "in", "a.png", "b.png"), photographs(tmp_path / "other", "a.png")
    (folder / "b.png").write_bytes(b"damaged")
    predictor, seen = counted(predict.of_run(segmentor))
    with pytest.raises(UserError, match="b.png is not a readable image"):
        predict.predict_folder(predictor, folder, tmp_path / "out", progress=quiet)
    for model, images in ((replace(predictor, name="another"), folder), (predictor, other)):
        with pytest.raises(UserError, match="begun with another model or other images; say --force to begin anew"):
            predict.predict_folder(model, images, tmp_path / "out", progress=quiet)
    seen.clear()
    assert predict.predict_folder(predictor, other, tmp_path / "out", force=True, progress=quiet) == (1, 1)
    assert len(seen) == 1


def test_two_calls_into_one_folder_are_kept_apart(segmentor, tmp_path):
    folder, predictor, refused = photographs(tmp_path / "in", "a.png"), predict.of_run(segmentor), []

    def second(image: np.ndarray):
        with pytest.raises(UserError, match="another process predicts into it; wait for it") as one:
            predict.predict_folder(predictor, folder, tmp_path / "out", progress=quiet)
        refused.append(one)
        return predictor.predict(image)

    assert predict.predict_folder(replace(predictor, predict=second), folder, tmp_path / "out", progress=quiet) == (
        1,
        1,
    )
    assert refused and {path.name for path in (tmp_path / "out").iterdir()} == {"labels", "overlays", journal.NAME}


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_no_folder_for_predictions(segmentor, tmp_path, force):
    folder = photographs(tmp_path / "in", "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--out .*file: is a file; name a folder$"):
        predict.predict_folder(predict.of_run(segmentor), folder, tmp_path / "file", force=force, progress=quiet)


def test_what_was_predicted_into_the_folder_is_no_image_of_it(segmentor, tmp_path):
    Image.new("RGB", (48, 48)).save(tmp_path / "a.png")
    predictor = predict.of_run(segmentor)
    for force in (False, True):
        done = predict.predict_folder(predictor, tmp_path, tmp_path / "seen", force=force, progress=quiet)
        assert done == (1, 1)
    with pytest.raises(UserError, match="holds no images but those of --out"):
        predict.predict_folder(predictor, tmp_path / "seen" / "labels", tmp_path / "seen", force=True, progress=quiet)


def test_the_commands(segmentor, trained, tmp_path):
    """From a run's folder to a file, and from the file to class maps; a run that is not finished; another suite's."""
    pytest.importorskip("onnxruntime")
    file = tmp_path / "student.onnx"
    said = run(BCD, "export", str(segmentor.folder), "--out", str(file), cwd=trained).stdout
    assert f"{file}: {file.stat().st_size} bytes" in said and "largest difference to PyTorch" in said
    assert open_file(file).metadata.key == smoke.TEACHER
    damaged = photographs(tmp_path / "damaged", "a.png", "b.png")
    (damaged / "a.png").write_bytes(b"no image")
    refused = run(BCD, "predict", str(file), str(damaged), "--out", str(tmp_path / "seen"), cwd=trained, check=False)
    assert refused.returncode == 2 and "bcd: 1 of 2 images are predicted" in refused.stdout
    said = run(BCD, "predict", str(file), "data/scenes-smoke/images/test", "--out", str(tmp_path / "out"), cwd=trained)
    assert "6 images" in said.stdout and len(list((tmp_path / "out" / "labels").iterdir())) == 6
    for arguments, sentence in (
        ((f"{smoke.PAIR}/kd/s0", "--suite", "smoke"), "is missing, not finished; run `bcd train --suite smoke"),
        ((smoke.TEACHER, "--suite", "scenes"), "is a run of the suite smoke, not of scenes; add `--suite smoke`"),
        (("results",), "holds no finished run"),
    ):
        refused = run(BCD, "export", *arguments, cwd=trained, check=False)
        assert refused.returncode == 2 and re.search(sentence, refused.stdout), refused.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["predict", "noext", "data", "--out", "seen"], "there is no file or folder noext, and suite scenes: 'noext'"),
        (["export", "results/store/nothere"], "there is no file or folder results/store/nothere, and suite scenes:"),
        (["evaluate", "nothere"], "suite scenes: 'nothere' is not defined; the nearest of"),
        (["train", "nothere"], "suite scenes: 'nothere' is not defined; the nearest of"),
    ],
)
def test_a_word_that_names_no_run_does_not_list_them_all(trained, monkeypatch, arguments, sentence):
    monkeypatch.chdir(trained)
    with pytest.raises(UserError) as refused:
        app([*arguments, "--suite", "scenes"], standalone_mode=False)
    said = str(refused.value)
    assert said.startswith(sentence) and said.endswith("; `bcd plan --all --suite scenes` lists them")
    assert len(said) < 500


def test_a_file_that_is_no_run_is_not_exported(trained, monkeypatch):
    monkeypatch.chdir(trained)
    with pytest.raises(UserError, match="Snakefile is a file; name a run by its key, or by its folder"):
        app(["export", "Snakefile"], standalone_mode=False)


def test_dynamic_executorch_is_refused_before_its_extra_is_asked_for(trained, monkeypatch):
    monkeypatch.chdir(trained)
    monkeypatch.setattr("bcd.export.executorch.PACKAGES", ("no_such_package",))
    with pytest.raises(UserError, match="--format executorch: `dynamic`: an ExecuTorch program plans its memory"):
        app(["export", smoke.TEACHER, "--suite", "smoke", "--format", "executorch", "--dynamic"], standalone_mode=False)
