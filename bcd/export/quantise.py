"""Static int8 quantisation after training: weights by output channel, activations by their range on real images.

The last convolution of each output, and what follows it, stay in float unless everything is asked for. In int8 two
classes often get equal logits there, and a tie goes to the lower class id (docs/guides/export.md).
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

OPENVINO_SCHEME = "NNCF preset MIXED, activations asymmetric by tensor, weights symmetric by channel"
EXECUTORCH_SCHEME = "torchao PT2E for XNNPACK, activations int8 by tensor, weights int8 by channel"
# What an OpenVINO model consists of that is float arithmetic, and not sizes or constants.
ARITHMETIC = ("Convolution", "GroupConvolution", "Add", "Interpolate", "Reshape", "Transpose", "Concat")
ONNX_SCHEME = "onnxruntime QDQ, activations uint8 by tensor (min-max), weights int8 by channel"


def of_onnx(model: Any, images: Sequence[np.ndarray], *, everything: bool) -> tuple[Any, str, list[str]]:
    """An `onnx.ModelProto` with quantise and dequantise operations around what runs in int8.

    Returns it, the scheme, and the names of the operations left in float.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    name = model.graph.input[0].name

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            found = next(self.left, None)
            return None if found is None else {name: found}

    kept = [] if everything else tails(model)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        quantize_static(
            model, target, Images(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, nodes_to_exclude=kept,
        )  # fmt: skip
        return onnx.load(target), ONNX_SCHEME, kept


def tails(model: Any) -> list[str]:
    """Names of the operations between each output of an ONNX model and the last convolution before it, inclusive."""
    makers = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, None] = {}
    left = [output.name for output in model.graph.output]
    while left:
        node = makers.get(left.pop())
        if node is None or node.name in found:
            continue
        found[node.name] = None
        if node.op_type != "Conv":
            left += node.input
    return list(found)


def of_openvino(model: Any, images: Sequence[np.ndarray], *, everything: bool) -> tuple[Any, str, list[str]]:
    """An `openvino.Model` with NNCF's quantisation, by its preset MIXED; returns what `of_onnx` returns.

    The default preset has symmetric ranges for activations too, which destroys transformers.
    """
    import nncf

    with _quiet(), contextlib.redirect_stdout(io.StringIO()):  # bars of progress
        logging.getLogger("nncf").setLevel(logging.ERROR)
        kept = [] if everything else openvino_tails(model)
        quantised = nncf.quantize(
            model, nncf.Dataset(list(images)), preset=nncf.QuantizationPreset.MIXED, subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
        )  # fmt: skip
    return quantised, OPENVINO_SCHEME, kept


def openvino_tails(model: Any) -> list[str]:
    """As `tails`, of an OpenVINO model."""
    found: dict[str, None] = {}
    left = [result.input_value(0).get_node() for result in model.get_results()]
    while left:
        node = left.pop()
        name, kind = node.get_friendly_name(), node.get_type_name()
        if name in found or kind not in ARITHMETIC:
            continue
        found[name] = None
        if "Convolution" not in kind:
            left += [node.input_value(i).get_node() for i in range(node.get_input_size())]
    return list(found)


def of_executorch(model: Any, images: Sequence[np.ndarray], *, everything: bool) -> tuple[Any, str, list[str]]:
    """A `torch.export.ExportedProgram` quantised for XNNPACK; returns what `of_onnx` returns."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    with _quiet(), torch.no_grad():
        module = model.module()
        kept = [] if everything else traced_tails(module.graph)
        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        if kept:
            quantizer.set_filter_function(lambda node: node.name not in kept)
        prepared = prepare_pt2e(module, quantizer)
        for image in images:
            prepared(torch.from_numpy(image))
        converted = convert_pt2e(prepared)
        return torch.export.export(converted, (torch.from_numpy(images[0]),)), EXECUTORCH_SCHEME, kept


def traced_tails(graph: Any) -> list[str]:
    """As `tails`, of a traced `torch.fx.Graph`."""
    found: dict[str, None] = {}
    left = list(graph.output_node().all_input_nodes)
    while left:
        node = left.pop()
        if node.op != "call_function" or node.name in found:
            continue
        found[node.name] = None
        if "conv" not in str(node.target):
            left += node.all_input_nodes
    return list(found)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the advice to pre-process a model, which the exporter has optimised already, off the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
