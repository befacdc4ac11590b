"""Static int8 quantisation after training: weights by output channel, activations by their range on real images.

The last convolution of each output, and what follows it, stay in float unless everything is asked for. In int8 two
classes often get equal logits there, and a tie goes to the lower class id (docs/guides/export.md).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
