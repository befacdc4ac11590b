"""OpenVINO and ExecuTorch, which are not in the lock: skipped where they are not installed."""

import hashlib

import numpy as np
import pytest
import torch
from support.exports import say

from bcd.errors import UserError
from bcd.export import parity, runtime
from bcd.export.build import Options, export
from bcd.export.formats import exporter
from bcd.export.sidecar import Sidecar, sidecar_path
from bcd.runs.record import read_as
from bcd.train.trained import load_trained


@pytest.fixture(params=["openvino", "executorch"])
def name(request) -> str:
    try:
        exporter(request.param)
    except UserError as error:
        pytest.skip(str(error))
    return request.param


def noise(count: int, height: int = 48, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, height, width)).astype(np.float32)


def logits_of(run, images: np.ndarray) -> np.ndarray:
    model, _ = load_trained(run.folder)
    with torch.no_grad():
        return model(torch.from_numpy(images))["logits"].numpy()


def test_a_file_says_what_pytorch_says_and_what_it_is(segmentor, name, tmp_path, trained):
    path = export(segmentor, Options(format=name), tmp_path, say=say)
    opened, beside = runtime.open_file(path, threads=1), read_as(Sidecar, sidecar_path(path))
    for count in (1, 3):
        assert np.abs(opened.run(noise(count))["logits"] - logits_of(segmentor, noise(count))).max() < parity.LIMIT
    assert opened.metadata == beside.metadata and opened.metadata.key == segmentor.key
    assert beside.files == {one: hashlib.sha256((tmp_path / one).read_bytes()).hexdigest() for one in beside.files}
    assert set(beside.files) == {path.with_suffix(suffix).name for suffix in exporter(name).SUFFIXES}
    for file in beside.files:
        data = (tmp_path / file).read_bytes()
        assert not [word for word in (str(trained), "site-packages", ".py", "/bcd/") if word.encode() in data]


def test_int8_differs_a_little_and_less_with_a_float_end(segmentor, name, tmp_path):
    found = {}
    for precision in ("int8", "int8-all"):
        path = export(segmentor, Options(format=name, precision=precision, calibration=6), tmp_path, say=say)
        found[precision] = read_as(Sidecar, sidecar_path(path))
        images = noise(1)
        scale = np.abs(logits_of(segmentor, images)).max()
        assert 0 < np.abs(runtime.open_file(path).run(images)["logits"] - logits_of(segmentor, images)).max() < scale
    assert found["int8"].calibration.kept and not found["int8-all"].calibration.kept
    assert found["int8"].parity.largest != found["int8-all"].parity.largest


def test_height_and_width_stay_open_where_the_format_can(segmentor, name, tmp_path):
    if name == "executorch":
        with pytest.raises(UserError, match="--dynamic: an ExecuTorch program plans its memory for one size"):
            export(segmentor, Options(format=name, dynamic=True), tmp_path, say=say)
        return
    opened = runtime.open_file(export(segmentor, Options(format=name, dynamic=True), tmp_path, say=say))
    images = noise(2, 41, 70)
    assert np.abs(opened.run(images)["logits"] - logits_of(segmentor, images)).max() < parity.LIMIT


def test_what_does_not_fit_is_told_in_a_sentence(segmentor, name, tmp_path):
    with pytest.raises(UserError, match="--opset is for --format onnx"):
        export(segmentor, Options(format=name, opset=20), tmp_path, say=say)
    path = tmp_path / f"foreign{exporter(name).SUFFIXES[0]}"
    for suffix in exporter(name).SUFFIXES:
        path.with_suffix(suffix).write_bytes(b"no model")
    with pytest.raises(UserError, match="foreign.* cannot read it"):
        runtime.open_file(path)
