"""Where an export goes: folders are made, two writers are kept apart, and a refusal comes before what it makes vain."""

import json
from dataclasses import replace

import pytest
from support.exports import say
from support.project import ROOT

from bcd.cli.export import _finished
from bcd.config.schema.exports import Export
from bcd.errors import UserError
from bcd.export.place import export_to
from bcd.export.sidecar import Sidecar, sidecar_path
from bcd.files import sha256_file
from bcd.runs.jsonfile import read_as

pytest.importorskip("onnxruntime")

ONNX = Export(format="onnx")


@pytest.mark.parametrize("out", ["new/deep/", "new", "new.d/"])
def test_a_folder_that_is_missing_is_made(segmentor, tmp_path, out):
    path = export_to(segmentor, ONNX, f"{tmp_path}/{out}", say=say)
    assert path.parent == tmp_path / out and path.exists() and sidecar_path(path).exists()
    assert len(list(path.parent.iterdir())) == 2


def test_a_refusal_leaves_no_folder(segmentor, tmp_path):
    many = Export(format="onnx", precision="int8", calibration=10000)
    with pytest.raises(UserError, match="calibration 10000"):
        export_to(segmentor, many, f"{tmp_path}/new/deep/", say=say)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("file", "--out .*file: is a file and no folder; name a folder, or a file that ends in .onnx"),
        ("file/", "--out .*file/: is a file and no folder"),
        ("file/student.onnx", "file is no folder; name another place"),
        ("notes.txt", "a file of onnx ends in .onnx; name it so, or name a folder, with / at its end"),
        ("student.onnx", "student.onnx.json is a folder; name another place"),
        ("taken", "semantic.*.onnx is a folder; name another place"),
    ],
)
def test_force_is_no_advice_where_it_does_not_help(segmentor, tmp_path, out, sentence, force):
    for name in ("file", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "student.onnx.json").mkdir()
    (tmp_path / "taken" / f"{segmentor.key.replace('/', '.')}.onnx").mkdir(parents=True)
    with pytest.raises(UserError, match=sentence) as refused:
        export_to(segmentor, ONNX, f"{tmp_path}/{out}", force=force, say=say)
    assert "--force" not in str(refused.value)


@pytest.mark.parametrize("force", [False, True])
def test_a_second_export_to_the_same_path_is_told_of_the_first(segmentor, tmp_path, force):
    path, refused = tmp_path / "student.onnx", []

    def second(text: str) -> None:
        if "comparing" in text:
            with pytest.raises(UserError, match="student.onnx is being written by another process; wait for it") as one:
                export_to(segmentor, ONNX, path, force=force, say=say)
            refused.append(one)

    assert export_to(segmentor, ONNX, path, force=force, say=second) == path
    assert refused and {one.name for one in tmp_path.iterdir()} == {path.name, sidecar_path(path).name}
    assert read_as(Sidecar, sidecar_path(path)).files == {path.name: sha256_file(path)}


def test_a_refused_replacement_leaves_the_file_and_its_json(segmentor, tmp_path, monkeypatch):
    path = export_to(segmentor, ONNX, tmp_path, say=say)
    before = {one: one.read_bytes() for one in tmp_path.iterdir()}
    monkeypatch.setattr("bcd.export.parity.LIMIT", 0.0)
    with pytest.raises(UserError, match="differs from PyTorch"):
        export_to(segmentor, ONNX, path, force=True, say=say)
    assert {one: one.read_bytes() for one in tmp_path.iterdir()} == before and json.loads(before[sidecar_path(path)])


@pytest.mark.parametrize(
    ("form", "opset", "head", "sentence"),
    [
        (Export(format="openvino"), 20, "light", "--opset is for --format onnx; leave it out"),
        (Export(format="executorch"), 20, "light", "--opset is for --format onnx; leave it out"),
        (Export(format="openvino", dynamic=True), None, "psp", "the head 'psp' pools to fixed grids"),
    ],
)
def test_what_no_extra_makes_possible_is_refused_before_an_extra_is_asked_for(
    segmentor, tmp_path, monkeypatch, form, opset, head, sentence
):
    monkeypatch.setattr(f"bcd.export.{form.format}.PACKAGES", ("no_such_package",))
    training = segmentor.spec.training
    other = replace(training, model=training.model.model_copy(update={"head": head}))
    run = replace(segmentor, spec=replace(segmentor.spec, training=other))
    with pytest.raises(UserError, match=sentence):
        export_to(run, form, tmp_path, opset=opset, say=say)
    with pytest.raises(UserError, match="no_such_package is not installed"):
        export_to(segmentor, Export(format=form.format), tmp_path, say=say)
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_suite_is_said(tmp_path, monkeypatch):
    (tmp_path / "params").symlink_to(ROOT / "params")
    made = tmp_path / "results/other/runs/semantic/a/b/none/s0.json"
    made.parent.mkdir(parents=True)
    made.touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a run of the suite other, not of scenes; add `--suite other`"):
        _finished("semantic/a/b/none/s0", None)
