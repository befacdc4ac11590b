"""OpenVINO's intermediate representation, converted from PyTorch: an .xml file and its weights, a .bin file.

It is compiled with float32 arithmetic: by default OpenVINO takes bfloat16 where a CPU has it.
Nothing is sent anywhere: by default OpenVINO's converter and NNCF report what they are used for to their makers.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcd.errors import UserError
from bcd.export.formats import Call, Files
from bcd.export.graph import Graph
from bcd.export.quiet import quiet

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
    decline_statistics()
    import openvino
    import torch

    height, width = (-1, -1) if dynamic else example.shape[2:]
    images = torch.from_numpy(np.concatenate([example, example]))
    with quiet(), torch.no_grad():
        model = openvino.convert_model(graph.module, example_input=images, input=[[-1, 3, height, width]])
    for name, output in zip(graph.outputs, model.outputs, strict=True):
        output.get_tensor().set_names({name})
    return named_by_place(model)


def named_by_place(model: Any) -> Any:
    """The model with names that equal exports have, too: OpenVINO numbers what PyTorch gave no name, process-wide."""
    model.set_friendly_name(KEY)
    for place, node in enumerate(model.get_ordered_ops()):
        if re.fullmatch(r"[A-Za-z]+_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}.{place}")
    return model


def quantise(model: Any, images: Sequence[np.ndarray], *, everything: bool) -> tuple[Any, str, list[str]]:
    """See `bcd.export.formats.Exporter`."""
    from bcd.export import quantise as ways

    decline_statistics()
    return ways.of_openvino(model, images, everything=everything)


def serialise(model: Any, metadata: str) -> Files:
    """See `bcd.export.formats.Exporter`."""
    import openvino

    for key in list(model.get_rt_info()):
        model.set_rt_info("", key)  # what the conversion was called with
    named_by_place(model).set_rt_info(metadata, KEY)
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


def decline_statistics() -> None:
    """Answer for this process, before a converter asks, that no statistics of use may be sent, and no file be written.

    OpenVINO's own way to decline is a file in the user's home, which is the user's to write.
    """
    with contextlib.suppress(ImportError):  # the package that sends them may be left out
        from openvino_telemetry.utils.opt_in_checker import ConsentCheckResult, OptInChecker

        OptInChecker.check = lambda *_args, **_options: ConsentCheckResult.DECLINED
