"""Static int8 quantisation after training: weights by output channel, activations by their range on real images.

The last convolution of each output, and what follows it, stay in float unless everything is asked for. In int8 two
classes often get equal logits there, and a tie goes to the lower class id (docs/guides/export.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from bcd.export.quiet import quiet

OPENVINO_SCHEME = "NNCF preset MIXED, activations asymmetric by tensor, weights symmetric by channel"
EXECUTORCH_SCHEME = "torchao PT2E for XNNPACK, activations int8 by tensor, weights int8 by channel"
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
    with tempfile.TemporaryDirectory() as folder, quiet():
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
    with quiet():
        import nncf

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
        if name in found or kind in ("Parameter", "Constant") or not node.get_output_element_type(0).is_real():
            continue  # what is not real computes sizes
        found[name] = None
        if "Convolution" not in kind:
            left += [node.input_value(i).get_node() for i in range(node.get_input_size())]
    return list(found)


def of_executorch(model: Any, images: Sequence[np.ndarray], *, everything: bool) -> tuple[Any, str, list[str]]:
    """A `torch.export.ExportedProgram` quantised for XNNPACK; returns what `of_onnx` returns."""
    import torch

    with quiet(), torch.no_grad():
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        module = model.module()
        kept = [] if everything else traced_tails(module.graph)
        module = with_own_parameters(module, kept)
        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        if kept:
            quantizer.set_filter_function(lambda node: node.name not in kept)
        prepared = prepare_pt2e(module, quantizer)
        for image in images:
            prepared(torch.from_numpy(image))
        converted = convert_pt2e(prepared)
        return torch.export.export(converted, (torch.from_numpy(images[0]),)), EXECUTORCH_SCHEME, kept


def with_own_parameters(module: Any, kept: Sequence[str]) -> Any:
    """A traced module whose convolutions outside `kept` share no weights and biases, as a head's do on every level.

    XNNPACK's quantizer passes by a convolution whose weights are another one's too. It stays in float, but its bias
    does not, and ExecuTorch's runtime then refuses the file.
    """
    seen = set[str]()
    for node in list(module.graph.nodes):
        if not _is_convolution(node) or node.name in kept:
            continue
        for place, shared in list(enumerate(node.args))[1:3]:
            if shared is not None and shared.target in seen:
                name = f"{node.name}_{place}"
                module.register_buffer(name, attrgetter(shared.target)(module).detach().clone())
                with module.graph.inserting_before(node):
                    own = module.graph.get_attr(name)
                own.meta = dict(shared.meta)
                node.update_arg(place, own)
            elif shared is not None:
                seen.add(shared.target)
    module.recompile()
    return module


def _is_convolution(node: Any) -> bool:
    return node.op == "call_function" and "conv" in str(node.target)


def traced_tails(graph: Any) -> list[str]:
    """As `tails`, of a traced `torch.fx.Graph`."""
    found: dict[str, None] = {}
    left = list(graph.output_node().all_input_nodes)
    while left:
        node = left.pop()
        if node.op != "call_function" or node.name in found:
            continue
        found[node.name] = None
        if not _is_convolution(node):
            left += node.all_input_nodes
    return list(found)
