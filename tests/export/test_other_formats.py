"""OpenVINO and ExecuTorch, which are not in the lock: skipped where they are not installed."""

import contextlib
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from support import smoke
from support.exports import DETECTOR, run_of, say

from bcd.config.check import check
from bcd.config.load import load_params
from bcd.config.schema.exports import Export
from bcd.errors import UserError
from bcd.export import parity, runtime
from bcd.export.formats import exporter
from bcd.export.graph import Graph, graph_of
from bcd.export.place import export_to as export
from bcd.export.sidecar import Sidecar, sidecar_path
from bcd.models.detection import build_detector
from bcd.runs.jsonfile import read_as
from bcd.train.trained import load_trained


@pytest.fixture(scope="module", params=["openvino", "executorch"])
def name(request) -> str:
    try:
        exporter(request.param)
    except UserError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module")
def exported(trained, name, tmp_path_factory) -> Path:
    """The path of the teacher's float32 file."""
    with contextlib.chdir(trained):
        return export(run_of(trained, smoke.TEACHER), Export(format=name), tmp_path_factory.mktemp(name), say=say)


def noise(count: int, height: int = 48, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, height, width)).astype(np.float32)


def logits_of(run, images: np.ndarray) -> np.ndarray:
    model, _ = load_trained(run.folder)
    with torch.no_grad():
        return model(torch.from_numpy(images))["logits"].numpy()


def convolutions(name: str, model) -> list[bool]:
    """Of a quantised model's convolutions, in their order, whether they run in int8."""
    if name == "openvino":
        found = [node for node in model.get_ordered_ops() if "Convolution" in node.get_type_name()]
        return [node.input_value(0).get_node().get_type_name() == "FakeQuantize" for node in found]
    found = [node for node in model.graph.nodes if node.op == "call_function" and "conv" in str(node.target)]
    return [all("dequantize" in str(part.target) for part in node.args[:2]) for node in found]


def resize_takes_int8(name: str, model) -> bool:
    """Whether the last resize of a quantised model comes behind what gives int8."""
    if name == "openvino":
        resize = [node for node in model.get_ordered_ops() if node.get_type_name() == "Interpolate"][-1]
        return resize.input_value(0).get_node().get_type_name() == "FakeQuantize"
    resize = [node for node in model.graph.nodes if "upsample_bilinear2d" in str(node.target)][-1]
    return "dequantize" in str(resize.args[0].target)


def quantised(name: str, graph: Graph, size: int, *, everything: bool):
    converted = exporter(name).convert(graph, noise(1, size, size), dynamic=False, opset=None)
    return exporter(name).quantise(converted, [noise(1, size, size)], everything=everything)


def test_a_file_says_what_pytorch_says_and_what_it_is(segmentor, name, exported, trained):
    opened, beside = runtime.open_file(exported, threads=1), read_as(Sidecar, sidecar_path(exported))
    for count in (1, 3):
        assert np.abs(opened.run(noise(count))["logits"] - logits_of(segmentor, noise(count))).max() < parity.LIMIT
    assert opened.metadata == beside.metadata and opened.metadata.key == segmentor.key
    folder = exported.parent
    assert beside.files == {one: hashlib.sha256((folder / one).read_bytes()).hexdigest() for one in beside.files}
    assert set(beside.files) == {exported.with_suffix(suffix).name for suffix in exporter(name).SUFFIXES}
    for file in beside.files:
        data = (folder / file).read_bytes()
        assert not [word for word in (str(trained), "site-packages", ".py", "/bcd/") if word.encode() in data]


def test_equal_exports_are_equal_files(segmentor, name, exported, tmp_path):
    again = export(segmentor, Export(format=name), tmp_path, say=say)
    assert read_as(Sidecar, sidecar_path(again)) == read_as(Sidecar, sidecar_path(exported))


def test_the_gate_sees_other_weights(segmentor, exported):
    model, _ = load_trained(segmentor.folder)
    with torch.no_grad():
        model.head.classifier.bias += 0.01
    with pytest.raises(UserError, match="differs from PyTorch by 0.01"):
        parity.compare(runtime.open_file(exported), graph_of(model), [noise(1)], ["noise"], gate=True)


def test_int8_is_calibrated_written_and_read(segmentor, name, tmp_path):
    path = export(segmentor, Export(format=name, precision="int8", calibration=6), tmp_path, say=say)
    beside, images = read_as(Sidecar, sidecar_path(path)), noise(3)
    assert beside.parity.limit is None and beside.calibration.images == 6 and beside.calibration.kept
    scale = np.abs(logits_of(segmentor, images)).max()
    assert 0 < np.abs(runtime.open_file(path).run(images)["logits"] - logits_of(segmentor, images)).max() < scale


def test_int8_keeps_the_last_convolution_and_the_resize_in_float_unless_all_is_asked_for(segmentor, name):
    graph = graph_of(load_trained(segmentor.folder)[0])
    model, _, kept = quantised(name, graph, 48, everything=False)
    found = convolutions(name, model)
    assert found.count(False) == 1 and not found[-1] and not resize_takes_int8(name, model) and len(kept) >= 2
    model, _, kept = quantised(name, graph, 48, everything=True)
    assert all(convolutions(name, model)) and resize_takes_int8(name, model) and not kept


def test_int8_keeps_the_last_convolutions_of_a_detector_on_every_level(name):
    """Of FCOS: classes, boxes, behind which a ReLU follows, and centerness; the file is one that the runtime reads."""
    model = load_params().models["light-fcos-student"]
    graph = graph_of(build_detector(model, 4).eval())
    quantised_model, _, _ = quantised(name, graph, 64, everything=False)
    low, high = model.detection.levels
    assert convolutions(name, quantised_model).count(False) == len(graph.outputs) * (high - low + 1)
    files = exporter(name).serialise(quantised_model, "{}")
    outputs = exporter(name).session(files, 1)[1](noise(2, 64, 64))
    assert [output.shape[0] for output in outputs] == [2] * len(graph.outputs)


def test_a_detector_says_what_pytorch_says(trained, name, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    run = run_of(trained, DETECTOR)
    opened = runtime.open_file(export(run, Export(format=name), tmp_path, say=say))
    model, _ = load_trained(run.folder)
    images = noise(2, opened.metadata.view.height, opened.metadata.view.width)
    with torch.no_grad():
        said = model.head.head(list(model.features(torch.from_numpy(images)).values()))
    outputs = opened.run(images)
    assert np.abs(outputs["class_logits"] - said["cls_logits"].numpy()).max() < parity.LIMIT
    assert np.abs(outputs["box_deltas"] - said["bbox_regression"].numpy()).max() < parity.LIMIT


def test_height_and_width_stay_open_where_the_format_can(segmentor, name, tmp_path):
    if name == "executorch":
        with pytest.raises(UserError, match="`dynamic`: an ExecuTorch program plans its memory for one size"):
            check(Export, {"format": name, "dynamic": True}, "form")
        return
    opened = runtime.open_file(export(segmentor, Export(format=name, dynamic=True), tmp_path, say=say))
    images = noise(2, 41, 70)
    assert np.abs(opened.run(images)["logits"] - logits_of(segmentor, images)).max() < parity.LIMIT


def test_what_does_not_fit_is_told_in_a_sentence(segmentor, name, exported, tmp_path):
    with pytest.raises(UserError, match="--opset is for --format onnx"):
        export(segmentor, Export(format=name), tmp_path, opset=20, say=say)
    opened = runtime.open_file(exported)
    with pytest.raises(UserError, match="takes images of 48 x 48 .height x width., not 40 x 48"):
        opened.run(noise(1, 40, 48))
    with pytest.raises(UserError, match=r"takes float32 \(N, 3, H, W\), not float64"):
        opened.run(noise(1).astype(np.float64))


def test_files_that_are_not_ours_are_refused(name, exported, tmp_path):
    suffixes = exporter(name).SUFFIXES
    whole = {suffix: exported.with_suffix(suffix).read_bytes() for suffix in suffixes}
    damages = {
        "text": lambda _: b"no model",
        "empty": lambda _: b"",
        "half": lambda data: data[: len(data) // 2],
    }
    for damage, change in damages.items():
        path = tmp_path / f"{damage}{suffixes[0]}"
        for suffix in suffixes:
            path.with_suffix(suffix).write_bytes(change(whole[suffix]))
        with pytest.raises(UserError, match=f"{damage}.* cannot read it"):
            runtime.open_file(path)
    with pytest.raises(UserError, match="none.* is missing"):
        runtime.open_file(tmp_path / f"none{suffixes[0]}")


def test_a_model_without_our_metadata_is_refused(name, tmp_path):
    """As another program would write it."""
    module = torch.nn.Conv2d(3, 2, 1).eval()
    path = tmp_path / f"foreign{exporter(name).SUFFIXES[0]}"
    if name == "openvino":
        import openvino

        openvino.save_model(openvino.convert_model(module, example_input=torch.zeros(1, 3, 8, 8)), path)
    else:
        from executorch.exir import to_edge_transform_and_lower

        program = torch.export.export(module, (torch.zeros(1, 3, 8, 8),))
        path.write_bytes(bytes(to_edge_transform_and_lower(program).to_executorch().buffer))
    with pytest.raises(UserError, match="foreign.* was not written by `bcd export`"):
        runtime.open_file(path)


def test_nobody_is_told_what_is_exported(name, exported):
    """OpenVINO's converter reports its use to its makers by default."""
    if name != "openvino":
        pytest.skip("only OpenVINO has such a report")
    from openvino_telemetry import Telemetry

    assert not Telemetry().consent
