"""Which models export to which formats, and how far the files are from PyTorch: the table of docs/reference/chip.md.

    python benchmarks/exports.py [NAME ...] [--formats onnx onnx-dynamic openvino executorch onnx-int8] [--size 64 96]

NAME is a model of params/models.yaml or BACKBONE/HEAD, a segmentor of 16 channels; by default one model of that file
for each pair of backbone and head. Weights are random, but batch norms know the images, which are noise: so logits have
their usual scale. int8 is calibrated on such images, too. A line appears as soon as a model is done; what a cell holds
is the largest difference in a logit, at two more sizes and for two images where the format leaves that open, or the
first words of what the toolchain said. `largest` is the largest logit of PyTorch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bcd.config.architectures import output_strides
from bcd.config.exportable import require_exportable
from bcd.config.load import load_params
from bcd.config.schema.models import AnyModel, DetectionModel, SegmentationModel
from bcd.errors import UserError, pick
from bcd.export import build, formats, parity
from bcd.export.graph import Graph, graph_of
from bcd.export.runtime import open_bytes, torch_call
from bcd.export.sidecar import Metadata, View
from bcd.models import build as build_segmentor
from bcd.models.base import DenseModel

CLASSES = 8
FORMATS = ("onnx", "onnx-dynamic", "openvino", "executorch")
QUANTISED = tuple(f"{name}-int8" for name in ("onnx", "openvino", "executorch"))
WARM_UP = 4  # batches that batch norms see
CALIBRATION = 8  # images that int8 ranges are measured on


def distinct(models: dict[str, AnyModel]) -> list[str]:
    """The first name of each pair of backbone and head; of detectors, in each engine."""
    found: dict[tuple[str, ...], str] = {}
    for name, model in models.items():
        engine = model.detection.engine if isinstance(model, DetectionModel) else ""
        found.setdefault((model.backbone, model.head, engine), name)
    return list(found.values())


def named(name: str) -> AnyModel:
    """A model of params/models.yaml, or the one that BACKBONE/HEAD describes."""
    backbone, slash, head = name.partition("/")
    if not slash:
        return pick(load_params().models, name, "benchmarks/exports.py")
    light = {"widths": [8, 16, 24, 32], "depths": [1] * 4} if backbone == "light" else {}
    stride = output_strides(backbone)[0]
    return SegmentationModel(backbone=backbone, head=head, channels=16, output_stride=stride, **light)


def random_model(model: AnyModel, size: Sequence[int]) -> DenseModel:
    """A model with random weights whose batch norms have seen noise."""
    torch.manual_seed(0)
    plain = model.model_copy(update={"pretrained": "none", "freeze": None})
    if isinstance(plain, DetectionModel):
        from bcd.models.detection import build_detector

        built: DenseModel = build_detector(plain, CLASSES)
        see = built.features
    else:
        built = build_segmentor(plain, CLASSES)
        see = built
    with torch.no_grad():
        for _ in range(WARM_UP):
            see(torch.randn(2, 3, *size))
    return built.eval()


def metadata_of(name: str, model: AnyModel, graph: Graph, kind: str, size: Sequence[int]) -> Metadata:
    """What a file of random weights says of itself."""
    return Metadata(
        task="detection" if isinstance(model, DetectionModel) else "semantic",
        key=name,
        run="random",
        weights_sha256="",
        model=f"{model.backbone} {model.head}",
        format=kind.partition("-")[0],
        precision="int8" if kind in QUANTISED else "float32",
        dynamic=kind.endswith("-dynamic"),
        classes=[str(i) for i in range(CLASSES)],
        palette=[[0, 0, 0]] * CLASSES,
        view=View(mean=[0.0] * 3, std=[1.0] * 3, height=size[0], width=size[1]),
        outputs=list(graph.outputs),
        decoding=graph.decoding,
    )


def noise(random: np.random.Generator, size: Sequence[int]) -> np.ndarray:
    """An input, float32 (1, 3, *size)."""
    return random.normal(size=(1, 3, *size)).astype(np.float32)


def cell(name: str, model: AnyModel, graph: Graph, kind: str, size: Sequence[int]) -> str:
    """The largest difference between a file of this kind and PyTorch, or why there is none."""
    metadata = metadata_of(name, model, graph, kind, size)
    exporter = formats.exporter(metadata.format)
    try:
        require_exportable(model, dynamic=metadata.dynamic, where=name)
        random = np.random.default_rng(1)
        calibrating = [noise(random, size) for _ in range(CALIBRATION)]
        files, _, _ = build.pack(graph, metadata, exporter.default_opset(None), calibrating)
        opened = open_bytes(files, Path(f"{name}{exporter.SUFFIXES[0]}"), metadata.format, threads=1)
        sizes = [(size[0], size[1])] + (parity.other_sizes(*size) if metadata.dynamic else [])
        random = np.random.default_rng(0)
        inputs = [noise(random, one) for one in sizes]
        found = parity.compare(opened, graph, inputs, ["noise"], gate=False)
    except UserError as error:
        return str(error).removeprefix(f"{name}: ").partition(";")[0]
    except Exception as error:  # of the toolchain, whatever it is
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:90]}"
    return f"{found.largest:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=(*FORMATS, *QUANTISED))
    parser.add_argument("--size", nargs=2, type=int, default=(64, 96))
    arguments = parser.parse_args()
    print(f"| model | backbone | head | largest | {' | '.join(arguments.formats)} |")
    print(f"|---|---|---|---:|{'---:|' * len(arguments.formats)}", flush=True)
    for name in arguments.names or distinct(load_params().models):
        model = named(name)
        try:
            require_exportable(model, dynamic=False, where=name)
            graph = graph_of(random_model(model, arguments.size))
        except UserError as error:
            why = str(error).removeprefix(f"{name}: ").partition(";")[0]
            print(f"| `{name}` | {model.backbone} | {model.head} | – | {why} |", flush=True)
            continue
        image = noise(np.random.default_rng(0), arguments.size)
        scale = max(float(np.abs(output).max()) for output in torch_call(graph.module)(image))
        cells = [cell(name, model, graph, kind, arguments.size) for kind in arguments.formats]
        print(f"| `{name}` | {model.backbone} | {model.head} | {scale:.1e} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
