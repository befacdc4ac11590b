"""ExecuTorch programs for phones and boards, their operations run by XNNPACK where it has them.

A program plans its memory for one image of one size; a batch is run image by image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bcd.errors import UserError
from bcd.export.formats import Call, Files
from bcd.export.graph import Graph
from bcd.export.quiet import quiet

SUFFIXES = (".pte",)
EXTRA = "executorch"
PACKAGES = ("executorch", "torchao")
FORWARD = "forward"
KEY = "bcd"  # the method without inputs that returns our metadata


def default_opset(wanted: int | None) -> None:
    """There is nothing to choose."""
    if wanted is not None:
        raise UserError("--opset is for --format onnx; leave it out")


def convert(graph: Graph, example: np.ndarray, *, dynamic: bool, opset: int | None) -> Any:
    """See `bcd.export.formats.Exporter`; a `torch.export.ExportedProgram` for one image."""
    import torch

    assert not dynamic  # no `Export` of this format is
    with quiet(), torch.no_grad():
        return torch.export.export(graph.module, (torch.from_numpy(example),), strict=False)


def quantise(model: Any, images: Sequence[np.ndarray], *, everything: bool) -> tuple[Any, str, list[str]]:
    """See `bcd.export.formats.Exporter`."""
    from bcd.export import quantise as ways

    return ways.of_executorch(model, images, everything=everything)


def serialise(model: Any, metadata: str) -> Files:
    """See `bcd.export.formats.Exporter`."""
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        lowered = to_edge_transform_and_lower(
            model, partitioner=[XnnpackPartitioner()], constant_methods={KEY: metadata}
        )
        return {SUFFIXES[0]: bytes(lowered.to_executorch().buffer)}


def session(files: Files, threads: int | None) -> tuple[str | None, Call]:
    """See `bcd.export.formats.Exporter`. The number of threads is that of the process, and stays so."""
    import torch

    with quiet():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        if threads is not None:
            portable_lib._unsafe_reset_threadpool(threads)
        try:
            program = Runtime.get().load_program(files[SUFFIXES[0]])
            found = {name: program.load_method(name) for name in (FORWARD, KEY) if name in program.method_names}
        except RuntimeError as error:
            raise UserError(f"ExecuTorch cannot read it ({error})") from error
    if FORWARD not in found:
        raise UserError(f"ExecuTorch finds no method `{FORWARD}` in it")
    text = str(found[KEY].execute([])[0]) if KEY in found else None

    def call(images: np.ndarray) -> list[np.ndarray]:
        # Asked of the program each time: it owns the bytes that its methods read, and they do not keep it alive.
        run = program.load_method(FORWARD).execute
        each = [run([torch.from_numpy(image[None].copy())]) for image in images]
        return [np.concatenate([np.array(output) for output in outputs]) for outputs in zip(*each, strict=True)]

    return text, call
