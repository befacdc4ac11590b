"""ONNX, by torch's exporter over `torch.export`, for onnxruntime and what else reads ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bcd.errors import UserError
from bcd.export.formats import Call, Files
from bcd.export.graph import Graph
from bcd.export.quiet import quiet

SUFFIXES = (".onnx",)
EXTRA = "chip"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
LEAST_OPSET = 18  # the exporter writes that for every earlier one, without a word
KEY = "bcd"  # the property that holds our metadata
INPUT = "image"
AXES = ("batch", "height", "width")  # what a file calls the sides that it leaves open


def default_opset(wanted: int | None) -> int:
    """OPSET unless another one is wanted; raises UserError for one that exporter or runtime lacks."""
    if wanted is None:
        return OPSET
    if wanted < LEAST_OPSET:
        raise UserError(
            f"--opset {wanted}: the exporter writes {LEAST_OPSET} or a later one; choose {OPSET}, the default"
        )
    import onnx
    import onnxruntime

    one = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "", [one], [
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    ])  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", wanted)], ir_version=10)
    try:
        _session(model.SerializeToString(), None)
    except Exception as error:  # the runtime has a class of its own for each refusal
        raise UserError(
            f"--opset {wanted}: onnxruntime {onnxruntime.__version__} cannot run it; choose {OPSET}, the default"
        ) from error
    return wanted


def convert(graph: Graph, example: np.ndarray, *, dynamic: bool, opset: int | None) -> Any:
    """See `bcd.export.formats.Exporter`; an `onnx.ModelProto`."""
    import torch
    from torch.export import Dim

    sides = {0: Dim("batch"), **({2: Dim.DYNAMIC, 3: Dim.DYNAMIC} if dynamic else {})}
    # Two images: torch.export takes a side of 1 for one that is always 1.
    images = torch.from_numpy(np.concatenate([example, example]))
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.module, (images,), dynamo=True, verbose=False, opset_version=opset, input_names=[INPUT],
            output_names=list(graph.outputs), dynamic_shapes=(sides,),
        )  # fmt: skip
    assert program is not None
    return _named_sides(without_traces(program.model_proto), dynamic)


def _named_sides(model: Any, dynamic: bool) -> Any:
    """The model whose input calls its open sides by AXES; outputs keep what the exporter derived."""
    sides = model.graph.input[0].type.tensor_type.shape.dim
    sides[0].dim_param = AXES[0]
    if dynamic:
        sides[2].dim_param, sides[3].dim_param = AXES[1:]
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = AXES[0]
    return model


def without_traces(model: Any) -> Any:
    """The model without what its exporter noted of the source: stack traces, module paths, documentation."""
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]  # shapes of every intermediate, which runtimes infer
    entries = [*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        entries += function.node
    for entry in entries:
        entry.doc_string = ""
        del entry.metadata_props[:]
    return model


def quantise(model: Any, images: Sequence[np.ndarray], *, everything: bool) -> tuple[Any, str, list[str]]:
    """See `bcd.export.formats.Exporter`."""
    from bcd.export import quantise as ways

    return ways.of_onnx(model, images, everything=everything)


def serialise(model: Any, metadata: str) -> Files:
    """See `bcd.export.formats.Exporter`."""
    import bcd

    without_traces(model)
    model.producer_name, model.producer_version = "bcd", bcd.__version__
    prop = model.metadata_props.add()
    prop.key, prop.value = KEY, metadata
    return {SUFFIXES[0]: model.SerializeToString(deterministic=True)}


def session(files: Files, threads: int | None) -> tuple[str | None, Call]:
    """See `bcd.export.formats.Exporter`."""
    try:
        opened = _session(files[SUFFIXES[0]], threads)
    except Exception as error:  # the runtime has a class of its own for each refusal
        raise UserError(f"onnxruntime cannot read it ({str(error).splitlines()[0]})") from error
    name = opened.get_inputs()[0].name
    return opened.get_modelmeta().custom_metadata_map.get(KEY), lambda images: opened.run(None, {name: images})


def _session(data: bytes, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it has to say of a model that it refuses comes as an exception, too
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
