"""What an exported file costs beside PyTorch: the ratio of their times, measured side by side in one process.

    python benchmarks/latency.py NAME ... [--formats onnx openvino] [--int8] [--size 240 320] [--rounds 20]

For models named as in benchmarks/exports.py, with random weights, batch 1, one thread each. All take turns,
image by image, and time is that of the processor; a ratio is the median over the rounds. GMAC/s is what the model's
multiply-accumulates (`bcd.models.complexity`) come to: near the core's peak no runtime can be much faster. Which CPU
this was, and whether it has the dot products of int8 (VNNI), is printed first: without them int8 is hardly faster.
"""

import argparse
import statistics

import numpy as np
import torch
from exports import metadata_of, named, random_model

from bcd.export import build, formats
from bcd.export.formats import Call
from bcd.export.graph import graph_of
from bcd.export.latency import ROUNDS, beside, seconds
from bcd.export.runtime import open_bytes, torch_call
from bcd.export.sidecar import TELLING_FLAGS, cpu, toolchain
from bcd.models.complexity import counted

VNNI = ("avx512_vnni", "avx_vnni")
CALIBRATION = 8  # images of noise: what int8 costs does not depend on its ranges


def calls_of(name: str, kinds: list[tuple[str, str]], size: tuple[int, int]) -> dict[str, Call]:
    """PyTorch first, then each format and precision, of one model."""
    model = named(name)
    graph = graph_of(random_model(model, size))
    random = np.random.default_rng(0)
    noise = [random.normal(size=(1, 3, *size)).astype(np.float32) for _ in range(CALIBRATION)]
    calls: dict[str, Call] = {"pytorch": torch_call(graph.module)}
    for kind, precision in kinds:
        metadata = metadata_of(name, model, graph, kind, size).model_copy(update={"precision": precision})
        exporter = formats.exporter(kind)
        files, _, _ = build.pack(graph, metadata, exporter.default_opset(None), noise)
        path = build.FOLDER / f"{name}{exporter.SUFFIXES[0]}"
        calls[f"{kind} {precision}"] = open_bytes(files, path, kind, threads=1).call
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--formats", nargs="+", default=["onnx"])
    parser.add_argument("--int8", action="store_true", help="also in int8")
    parser.add_argument("--size", nargs=2, type=int, default=(240, 320))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = cpu()
    print(f"{found.name}; of {', '.join(TELLING_FLAGS)} it has {', '.join(found.flags) or 'none'}")
    print(f"VNNI: {'yes' if set(VNNI) & set(found.flags) else 'no'}; one thread, batch 1, {arguments.size}")
    packages = tuple(package for name in arguments.formats for package in formats.exporter(name).PACKAGES)
    print(", ".join(f"{name} {version}" for name, version in toolchain(packages).items()))
    print(
        "| model | runtime | CPU ms | GMAC/s | ratio to PyTorch | its quartiles |\n|---|---|---:|---:|---:|---:|",
        flush=True,
    )
    kinds = [(name, precision) for name in arguments.formats for precision in ("float32", "int8")[: 1 + arguments.int8]]
    image = np.random.default_rng(1).normal(size=(1, 3, *arguments.size)).astype(np.float32)
    for name in arguments.names:
        calls = calls_of(name, kinds, tuple(arguments.size))
        macs = counted(lambda calls=calls: calls["pytorch"](image))
        times = seconds(calls, image, arguments.rounds)
        for runtime, own in times.items():
            low, middle, high = beside(own, times["pytorch"])
            median = statistics.median(own)
            cells = f"{1000 * median:.2f} | {macs / median / 1e9:.1f} | {middle:.2f} | {low:.2f} to {high:.2f}"
            print(f"| `{name}` | {runtime} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
