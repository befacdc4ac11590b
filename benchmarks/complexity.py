"""Size and inference cost of models of params/models.yaml, beside published figures.

    python benchmarks/complexity.py [NAME ...] [--classes 150] [--size 512 512] [--runs 5] [--out results/complexity]

For each model, by default those of which params/published has figures, and one image in float32:

    parameters, M   auxiliary head included
    MACs, G         multiply-accumulates in the convention of `bcd.models.flops`; a detector's depend on what it finds
    ms              of a forward pass, the median of the runs; on one CPU thread and, where there is one, the GPU
    MiB             that a forward pass needs beyond the weights, as the growth of the peak

Weights and images are random, each model has a fresh process. With --out, OUT.md and OUT.json are written as well.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bcd.config.load import load_params
from bcd.config.schema.models import AnyModel, DetectionModel
from bcd.errors import UserError, pick

BPKD = Path("params/published/semseg_kd_bpkd_readme.csv")
# Ours -> model and backbone as that file names them. Its figures are those of 150 classes at 512x512.
PUBLISHED = {
    "pspnet-r101": ("PSPNet", "ResNet-101"),
    "pspnet-r18": ("PSPNet", "ResNet-18"),
    "isanet-r101": ("ISANet", "ResNet-101"),
    "isanet-r18": ("ISANet", "ResNet-18"),
    "deeplabv3plus-r101": ("DeepLabV3+", "ResNet-101"),
    "deeplabv3plus-mv2-ade20k": ("DeepLabV3+", "MobileNetV2"),
    "fcn-hrnet-w48": ("FCN-HRNet", "HRNetV2p-W48"),
    "fcn-hrnet-w18s": ("FCN-HRNet", "HRNetV2p-W18-Small"),
}
MEASURES = {
    "parameters": ("parameters, M", 1e6, 2),
    "macs": ("MACs, G", 1e9, 2),
    "cpu_seconds": ("CPU, ms", 1e-3, 0),
    "cpu_bytes": ("CPU, MiB", 2**20, 0),
    "gpu_seconds": ("GPU, ms", 1e-3, 1),
    "gpu_bytes": ("GPU, MiB", 2**20, 0),
}
# Freed memory goes back to the system at once, so that the peak is what was held together.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def published() -> dict[str, dict[str, str]]:
    """Our model's name -> the printed parameters (M) and multiply-accumulates (G) and their source."""
    with BPKD.open(newline="") as file:
        lines = {(line["model"], line["backbone"]): line for line in csv.DictReader(file)}
    return {name: lines[key] for name, key in PUBLISHED.items()}


def measured(model: AnyModel, classes: int, size: Sequence[int], runs: int) -> dict[str, Any]:
    """All measures of one model, in this process."""
    import torch

    from bcd.models import build, count_parameters, flops
    from bcd.models.complexity import counted
    from bcd.models.detection import build_detector

    torch.manual_seed(0)
    plain = model.model_copy(update={"pretrained": "none"})
    detector = isinstance(plain, DetectionModel)
    net = (build_detector(plain, classes) if isinstance(plain, DetectionModel) else build(plain, classes)).eval()
    image = torch.randn(1, 3, *size)
    forward = _detection(net, size) if detector else net
    with torch.no_grad():
        macs = counted(lambda: forward(image)) if detector else flops(net, tuple(size))
        found = {"parameters": count_parameters(net), "macs": macs}
        found["cpu_bytes"] = _growth(lambda: forward(image))
        found["cpu_seconds"] = _median(lambda: forward(image), runs)
        if torch.cuda.is_available():
            net.cuda()
            on_gpu = image.cuda()
            found["gpu_seconds"] = _median(lambda: (forward(on_gpu), torch.cuda.synchronize()), runs)
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            forward(on_gpu)
            found["gpu_bytes"] = torch.cuda.max_memory_allocated() - held
    return found


def _detection(net: Any, size: Sequence[int]) -> Callable[[Any], Any]:
    sizes = [tuple(size)]
    return lambda image: net.detect(image, sizes, sizes)


def _median(call: Callable[[], Any], runs: int) -> float:
    taken = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[1:])


def _growth(call: Callable[[], Any]) -> int:
    """Bytes by which the peak of this process's resident set exceeds what it held before."""
    call()  # the first one loads code and allocates buffers that stay
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status()["VmRSS"]
    call()
    return _status()["VmHWM"] - before


def _status() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def in_fresh_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, name, "--measure", "--classes", str(options.classes)]
    command += ["--size", *map(str, options.size), "--runs", str(options.runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=os.environ | ENVIRONMENT)
    if done.returncode:  # it has said why
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def table(rows: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """Markdown; the published columns stand beside what was measured at their own setting only."""
    lines = published() if (options.classes, tuple(options.size)) == (150, (512, 512)) else {}
    used = [measure for measure in MEASURES if any(measure in row for row in rows.values())]
    heads = ["model", *(MEASURES[measure][0] for measure in used), "published: parameters, M", "MACs, G", "source"]
    text = [f"{options.classes} classes, {options.size[0]}x{options.size[1]}, one image, float32, one CPU thread.", ""]
    text += [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(used) + 2) + "---|"]
    for name, row in rows.items():
        cells = [name, *(_shown(row, measure) for measure in used)]
        line = lines.get(name)
        cells += (
            [line["params_m"], line["gflops"], f"[{line['source_title']}]({line['source_url']})"] if line else 3 * ["-"]
        )
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def _shown(row: dict[str, Any], measure: str) -> str:
    _, unit, digits = MEASURES[measure]
    return f"{row[measure] / unit:.{digits}f}" if measure in row else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of params/models.yaml")
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(512, 512),
        metavar=("HEIGHT", "WIDTH"),
        help="of a detector, multiples of 32 (800 1344 for COCO)",
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    models = load_params().models
    chosen = {name: pick(models, name, "params/models.yaml") for name in options.names or PUBLISHED}
    if options.measure:
        ((_, model),) = chosen.items()
        print(json.dumps(measured(model, options.classes, options.size, options.runs)))
        return
    rows = {name: in_fresh_process(name, options) for name in chosen}
    page = table(rows, options)
    print(page)
    if options.out:
        setting = {"classes": options.classes, "size": list(options.size)}
        options.out.with_suffix(".md").write_text(page + "\n")
        options.out.with_suffix(".json").write_text(json.dumps(setting | {"models": rows}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
