"""Peak memory of one distillation step of a detector at full size, each method in a process of its own.

    python benchmarks/memory.py [--teacher resnet101] [--student resnet18] [--head retinanet] [--size 800 1333]

Random images, weights and objects; the figure is the process's peak resident memory (on a GPU, of its allocator), which
includes the imports. `none` is the student alone with a teacher loaded but not run.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from bcd.config.load import load_params
from bcd.config.schema.models import Detection, DetectionModel
from bcd.data.objects.stream import ObjectBatch
from bcd.distill.taps import Taps, observe
from bcd.distill.terms import WeightedTerms
from bcd.distributed import own_device
from bcd.models.detection import build_detector
from bcd.models.detection.detector import Targets

CLASSES, OBJECTS, PAD = 80, 10, 128


def random_batch(size: tuple[int, int], images: int) -> ObjectBatch:
    height, width = (-(-side // PAD) * PAD for side in size)
    corners = torch.rand(OBJECTS, 2) * torch.tensor([size[1] - 200.0, size[0] - 200.0])
    targets = Targets(torch.cat([corners, corners + 150], 1), torch.arange(OBJECTS) % CLASSES)
    valid = torch.zeros(images, height, width, dtype=torch.bool)
    valid[:, : size[0], : size[1]] = True
    image = torch.randn(images, 3, height, width) * valid.unsqueeze(1)
    return ObjectBatch(image, [size] * images, [targets] * images, valid, ["random"] * images, images)


def one_step(options: argparse.Namespace, method: str) -> dict[str, float]:
    """Peak memory in bytes and seconds of the step."""
    torch.manual_seed(0)
    device = own_device()
    terms = load_params().methods[method].terms
    detection = Detection(engine=options.engine)
    student, teacher = (
        build_detector(DetectionModel(backbone=name, head=options.head, channels=256, detection=detection), CLASSES).to(
            device
        )
        for name in (options.student, options.teacher)
    )
    teacher.requires_grad_(False).eval()
    batch = random_batch(tuple(options.size), options.batch).to(device)
    names = sorted({tap for term in terms for tap in term.taps})
    paths = [{name: model.taps[name] for name in names} for model in (student, teacher)]
    begin = time.perf_counter()
    with Taps(student, paths[0]) as seen, Taps(teacher, paths[1]) as taught:
        if terms:
            small = torch.zeros(1, 3, PAD, PAD, device=device)
            shapes = [
                observe(model, path, lambda model=model: model.features(small))
                for model, path in zip((student, teacher), paths, strict=True)
            ]
            weighted = WeightedTerms(terms, *shapes, classes=CLASSES)
            weighted.to(device)
            with torch.no_grad():
                teacher.features(batch.image)
        losses = student(batch.image, batch.sizes, batch.targets)
        if terms:
            losses |= weighted(seen.read(), taught.read(), step=0, total=1, **batch.facts())
        sum(losses.values()).backward()
    peak = (
        torch.cuda.max_memory_allocated() if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )  # fmt: skip
    return {"bytes": peak, "seconds": time.perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="torchvision", choices=["torchvision", "detectron2"])
    parser.add_argument("--head", default="retinanet")
    parser.add_argument("--teacher", default="resnet101")
    parser.add_argument("--student", default="resnet18")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1333])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["none", "bcd-boundary", "bcd-context", "bcd"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_step(options, options.one)))
        return
    print("| method | peak GiB | over none GiB | seconds |\n|---|---:|---:|---:|")
    plain = None
    for method in options.methods:
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--one", method], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        plain = plain or found["bytes"]
        gib = found["bytes"] / 2**30
        print(f"| {method} | {gib:.2f} | {gib - plain / 2**30:.2f} | {found['seconds']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
