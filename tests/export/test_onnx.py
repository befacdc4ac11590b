"""ONNX: the file alone says what PyTorch says, and how it is to be used."""

import contextlib
import hashlib
import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import smoke
from support.exports import DETECTOR, run_of, say

from bcd.config.schema.exports import Export
from bcd.errors import UserError
from bcd.export import build, parity, runtime
from bcd.export.place import export_to as export
from bcd.export.sidecar import Sidecar, sidecar_path
from bcd.export.standin import stand_in
from bcd.runs.jsonfile import read_as
from bcd.tasks import make_task
from bcd.train.trained import load_trained

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ONNX = Export(format="onnx")


def images(count: int, height: int = 48, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, height, width)).astype(np.float32)


def logits_of(run, inputs: np.ndarray) -> np.ndarray:
    model, _ = load_trained(run.folder)
    with torch.no_grad():
        return model(torch.from_numpy(inputs))["logits"].numpy()


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The path of the teacher's float32 file."""
    with contextlib.chdir(trained):
        return export(run_of(trained, smoke.TEACHER), ONNX, tmp_path_factory.mktemp("onnx"), say=say)


def test_the_file_says_what_pytorch_says_for_any_number_of_images(segmentor, exported):
    opened = runtime.open_file(exported, threads=1)
    for count in (1, 3):
        inputs = images(count)
        assert np.abs(opened.run(inputs)["logits"] - logits_of(segmentor, inputs)).max() < parity.LIMIT


def test_the_file_is_whole_and_says_what_it_is(segmentor, exported):
    model = onnx.load(exported, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    found = runtime.open_file(exported).metadata
    data = segmentor.spec.training.data
    assert (found.key, found.run) == (segmentor.key, segmentor.spec.hash)
    assert (found.classes, found.view.mean, found.view.std) == (data.classes, data.mean, data.std)
    assert found.view.colour_order == "RGB" and len(found.palette) == len(data.classes)
    assert [entry.key for entry in model.metadata_props] == ["bcd"]


def test_the_file_names_no_path_of_this_machine(exported, trained):
    data = exported.read_bytes()
    for word in (str(trained), str(build.__file__), "site-packages", ".py", "stack_trace"):
        assert word.encode() not in data


def test_the_json_beside_it_has_hashes_versions_and_parity(exported):
    found = read_as(Sidecar, sidecar_path(exported))
    assert found.files == {exported.name: hashlib.sha256(exported.read_bytes()).hexdigest()}
    assert found.toolchain["onnxruntime"] == __import__("onnxruntime").__version__
    assert found.opset == onnx.load(exported).opset_import[0].version
    assert found.parity.largest <= found.parity.limit and found.parity.sizes == [[48, 48]]
    assert found.calibration is None


def test_equal_exports_are_equal_files(segmentor, exported, tmp_path):
    again = export(segmentor, ONNX, tmp_path, say=say)
    assert again.read_bytes() == exported.read_bytes()


def test_a_dynamic_file_takes_other_sizes(segmentor, tmp_path):
    opened = runtime.open_file(export(segmentor, Export(format="onnx", dynamic=True), tmp_path, say=say))
    inputs = images(2, 41, 70)
    assert np.abs(opened.run(inputs)["logits"] - logits_of(segmentor, inputs)).max() < parity.LIMIT
    found = read_as(Sidecar, sidecar_path(next(tmp_path.glob("*.onnx"))))
    assert len(found.parity.sizes) > 1


@pytest.mark.parametrize("precision", ["int8", "int8-all"])
def test_int8_is_calibrated_on_training_images_and_keeps_the_end_in_float(segmentor, tmp_path, precision):
    path = export(segmentor, Export(format="onnx", precision=precision, calibration=5, seed=3), tmp_path, say=say)
    found, model = read_as(Sidecar, sidecar_path(path)), onnx.load(path)
    assert (found.calibration.images, found.calibration.seed, found.calibration.split) == (5, 3, "train")
    assert found.parity.limit is None and found.parity.largest > 0
    makers = {output: node for node in model.graph.node for output in node.output}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    quantised = [node for node in convs if node.input[1] in makers and "Dequantize" in makers[node.input[1]].op_type]
    assert len(convs) - len(quantised) == (1 if precision == "int8" else 0)
    scales = [tensor for tensor in model.graph.initializer if "weight_scale" in tensor.name]
    assert any(scale.dims and scale.dims[0] > 1 for scale in scales), "one scale for each channel"
    assert path.name.endswith(f"-{precision}.onnx")


def test_the_task_evaluates_the_file_with_the_metrics_of_the_run(segmentor, exported, trained):
    """So that no metric is written twice: the float file has the run's own to a hundredth of a percent."""
    task = make_task(segmentor.spec.training, segmentor.root)
    model, _ = load_trained(segmentor.folder)
    ours = task.evaluate(model, segmentor.evaluation, torch.device("cpu")).metrics
    theirs = task.evaluate(stand_in(runtime.open_file(exported)), segmentor.evaluation, torch.device("cpu"))
    assert theirs.metrics.keys() == ours.keys()
    assert theirs.metrics["miou"] == pytest.approx(ours["miou"], abs=0.01)


def test_a_file_that_differs_from_pytorch_is_not_written(segmentor, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "LIMIT", 0.0)
    with pytest.raises(UserError, match="differs from PyTorch by .* not written"):
        export(segmentor, ONNX, tmp_path / "file.onnx", say=say)
    assert not list(tmp_path.iterdir())


def test_the_gate_sees_other_weights(segmentor, exported):
    model, _ = load_trained(segmentor.folder)
    with torch.no_grad():
        model.head.classifier.bias += 0.01
    with pytest.raises(UserError, match="differs from PyTorch by 0.01"):
        parity.compare(runtime.open_file(exported), build.graph_of(model), [images(1)], ["noise"], gate=True)


def test_what_is_there_is_kept_unless_forced(segmentor, tmp_path):
    path = tmp_path / "student.onnx"
    path.write_text("mine")
    with pytest.raises(UserError, match="student.onnx exists; say --force"):
        export(segmentor, ONNX, path, say=say)
    assert path.read_text() == "mine"
    assert export(segmentor, ONNX, path, force=True, say=say) == path
    assert runtime.open_file(path).metadata.key == segmentor.key


@pytest.mark.parametrize(
    ("form", "opset", "sentence"),
    [
        (ONNX, 99, "--opset 99: onnxruntime .* cannot run it"),
        (ONNX, 12, "--opset 12: the exporter writes 18 or a later one"),
        (Export(format="onnx", precision="int8", calibration=13), None, "calibration 13: .*'train' has 12 images"),
    ],
)
def test_bad_options_are_told_in_a_sentence(segmentor, tmp_path, form, opset, sentence):
    with pytest.raises(UserError, match=sentence):
        export(segmentor, form, tmp_path, opset=opset, say=say)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [18, 20, 21])
def test_the_opset_that_is_said_is_that_of_the_file(segmentor, tmp_path, opset):
    path = export(segmentor, ONNX, tmp_path, opset=opset, say=say)
    (own,) = (one.version for one in onnx.load(path).opset_import if one.domain == "")
    assert own == opset == read_as(Sidecar, sidecar_path(path)).opset


def test_a_json_that_is_there_is_not_replaced_either(segmentor, tmp_path):
    beside = tmp_path / "student.onnx.json"
    beside.write_text("mine")
    with pytest.raises(UserError, match="student.onnx.json exists; say --force"):
        export(segmentor, ONNX, tmp_path / "student.onnx", say=say)
    assert beside.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_made(segmentor, tmp_path):
    (tmp_path / "file").write_text("no folder")
    said: list[str] = []
    with pytest.raises(UserError, match="file is no folder; name another place"):
        export(segmentor, ONNX, tmp_path / "file" / "student.onnx", say=said.append)
    assert not said


def test_another_suffix_is_refused(segmentor, tmp_path):
    with pytest.raises(UserError, match="--out .*: a file of onnx ends in .onnx"):
        export(segmentor, ONNX, tmp_path / "student.pb", say=say)


def test_a_missing_extra_is_named(segmentor, tmp_path, monkeypatch):
    monkeypatch.setattr("bcd.export.onnx.PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match="no_such_package is not installed; install the extra: pip install 'bcd.chip.'"):
        export(segmentor, ONNX, tmp_path, say=say)


@pytest.mark.parametrize("head", ["psp", "uper"])
def test_dynamic_is_refused_where_exporters_are_wrong(segmentor, tmp_path, head):
    training = segmentor.spec.training
    other = replace(training, model=training.model.model_copy(update={"head": head}))
    run = replace(segmentor, spec=replace(segmentor.spec, training=other))
    with pytest.raises(UserError, match=f"the head '{head}' pools to fixed grids"):
        export(run, Export(format="onnx", dynamic=True), tmp_path, say=say)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (images(1, 40, 48), "takes images of 48 x 48 .height x width., not 40 x 48"),
        (images(1)[0], r"takes float32 \(N, 3, H, W\), not float32 \(3, 48, 48\)"),
        (images(1).astype(np.float64), r"takes float32 \(N, 3, H, W\), not float64"),
    ],
)
def test_an_input_of_another_kind_is_refused(exported, inputs, sentence):
    with pytest.raises(UserError, match=sentence):
        runtime.open_file(exported).run(inputs)


def test_files_that_are_not_ours_are_refused(exported, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    broken, foreign, newer = (tmp_path / f"{name}.onnx" for name in ("broken", "foreign", "newer"))
    broken.write_bytes(exported.read_bytes()[:1000])
    model = onnx.load(exported)
    prop = model.metadata_props.pop()
    onnx.save(model, foreign)
    content = json.loads(prop.value) | {"version": 2}
    model.metadata_props.append(onnx.StringStringEntryProto(key="bcd", value=json.dumps(content)))
    onnx.save(model, newer)
    for path, sentence in (
        (text, "notes.txt is no exported file"),
        (broken, "broken.onnx: onnxruntime cannot read it"),
        (foreign, "foreign.onnx was not written by `bcd export`"),
        (newer, "newer.onnx holds metadata of another version"),
        (tmp_path / "none.onnx", "none.onnx is missing"),
    ):
        with pytest.raises(UserError, match=sentence):
            runtime.open_file(path)


def test_a_detector_comes_with_its_decoder(trained, tmp_path, monkeypatch):
    """Raw heads in the file, and beside it the module that makes boxes of them, without this package."""
    monkeypatch.chdir(trained)
    run = run_of(trained, DETECTOR)
    path = export(run, ONNX, tmp_path, say=say)
    opened, model = runtime.open_file(path), load_trained(run.folder)[0]
    height, width = opened.metadata.view.height, opened.metadata.view.width
    inputs = images(1, height, width)
    with torch.no_grad():
        said = model.head.head(list(model.features(torch.from_numpy(inputs)).values()))
    outputs = opened.run(inputs)
    assert np.abs(outputs["class_logits"] - said["cls_logits"].numpy()).max() < parity.LIMIT
    assert np.abs(outputs["box_deltas"] - said["bbox_regression"].numpy()).max() < parity.LIMIT
    assert build.DECODER in read_as(Sidecar, sidecar_path(path)).files
    spec = importlib.util.spec_from_file_location("bcd_decode", tmp_path / build.DECODER)
    decoder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(decoder)
    decoding = opened.metadata.decoding | {"score_threshold": 0.0}
    found = decoder.decode(outputs, decoding, size=(height, width), padded=(height, width))
    assert len(found["boxes"]) == decoding["max_detections"] and (np.diff(found["scores"]) <= 0).all()
