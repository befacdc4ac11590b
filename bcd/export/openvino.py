"""OpenVINO's intermediate representation, converted from PyTorch: an .xml file and its weights, a .bin file.

It is compiled with float32 arithmetic: by default OpenVINO takes bfloat16 where a CPU has it.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcd.errors import UserError
from bcd.export.formats import Call, Files
from bcd.export.graph import Graph

SUFFIXES = (".xml", ".bin")
EXTRA = "openvino"
PACKAGES = ("openvino", "nncf")
KEY = "bcd"  # of the model's runtime information, which holds our metadata


def default_opset(wanted: int | None) -> None:
    """There is nothing to choose."""
    if wanted is not None:
        raise UserError("--opset is for --format onnx; leave it out")


def convert(graph: Graph, example: np.ndarray, *, dynamic: bool, opset: int | None) -> Any:
    """See `bcd.export.formats.Exporter`; an `openvino.Model`."""
    import openvino
    import torch

    height, width = (-1, -1) if dynamic else example.shape[2:]
    images = torch.from_numpy(np.concatenate([example, example]))
    # The tracer prints advice on code that it cannot follow; whether it could is what the comparison shows.
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model = openvino.convert_model(graph.module, example_input=images, input=[[-1, 3, height, width]])
    for name, output in zip(graph.outputs, model.outputs, strict=True):
        output.get_tensor().set_names({name})
    return model


def quantise(model: Any, images: Sequence[np.ndarray], *, everything: bool) -> tuple[Any, str, list[str]]:
    """See `bcd.export.formats.Exporter`."""
    from bcd.export import quantise as ways

    return ways.of_openvino(model, images, everything=everything)


def serialise(model: Any, metadata: str) -> Files:
    """See `bcd.export.formats.Exporter`."""
    import openvino

    for key in list(model.get_rt_info()):
        model.set_rt_info("", key)  # what the conversion was called with
    model.set_rt_info(metadata, KEY)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return {suffix: path.with_suffix(suffix).read_bytes() for suffix in SUFFIXES}


def session(files: Files, threads: int | None) -> tuple[str | None, Call]:
    """See `bcd.export.formats.Exporter`."""
    import openvino

    xml, weights = (files[suffix] for suffix in SUFFIXES)
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        options |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    try:
        model = openvino.Core().read_model(xml, weights)
        compiled = openvino.Core().compile_model(model, "CPU", options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"OpenVINO cannot read it ({str(error).strip().splitlines()[-1]})") from error
    text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None

    def call(images: np.ndarray) -> list[np.ndarray]:
        found = compiled(np.ascontiguousarray(images))
        return [np.array(found[output]) for output in compiled.outputs]

    return text, call
