"""COCO average precision, rows and summary: ours beside pycocotools, faster-coco-eval and the way of Boundary AP.

    python benchmarks/coco_ap.py [--kinds box mask boundary] [--images 5000] [--boundary-images 1000] [--repeats 3]

The images are drawn: 36 detections and 7 objects each on average, 80 classes, 480 x 640 pixels, wobbly ellipses. Every
contender gets the same lists of dictionaries in a process of its own, one thread, and takes turns with the others. The
seconds are CPU time (user and system) from these lists to the numbers, without imports; the memory is what the peak
rises above the lists. The medians are shown, and how far the numbers are from pycocotools'.

`boundary` has no pycocotools. Its reference does what the official code of Cheng et al. (2021) does by its paper:
pycocotools' loop with min(mask IoU, boundary IoU), where every mask is decoded as a whole, padded by a pixel, eroded d
times by a 3 x 3 square, and what that takes away is encoded again. faster-coco-eval does the same.
"""

import argparse
import contextlib
import io
import json
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import faster_coco_eval
import numpy as np
from pycocotools import mask as codes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bcd.metrics.boundary import band_width
from bcd.metrics.detection import detection_rows, summarise_detection

HEIGHT, WIDTH, CLASSES, DETECTIONS, OBJECTS = 480, 640, 80, 36, 7
PARTS = ("", "50", "75", "_s", "_m", "_l")
SUFFIX = {"box": "", "mask": "_mask", "boundary": "_boundary"}


def draw_boxes(draw: np.random.Generator, count: int) -> np.ndarray:
    """x, y, width, height, sides from 10 pixels to half of the image."""
    sides = np.exp(draw.uniform(np.log(10), np.log([WIDTH / 2, HEIGHT / 2]), (count, 2)))
    return np.concatenate([draw.uniform(0, [WIDTH, HEIGHT] - sides), sides], 1)


def entry(draw: np.random.Generator, image: int, category: int, box: np.ndarray, masks: bool) -> dict[str, Any]:
    found = {"image_id": image, "category_id": category, "bbox": box.tolist()}
    if masks:
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        wobble = draw.uniform(0.8, 1.0, angle.size)
        edge = box[:2] + box[2:] * (1 + np.stack([np.cos(angle), np.sin(angle)], 1) * wobble[:, None]) / 2
        found["segmentation"] = codes.frPyObjects([edge.ravel().tolist()], HEIGHT, WIDTH)[0]
    return found


def drawn(images: int, masks: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects and detections: two near each object, the others anywhere, half of them of a class of the image."""
    draw = np.random.default_rng(0)
    truth: dict[str, Any] = {
        "images": [{"id": n, "height": HEIGHT, "width": WIDTH} for n in range(1, images + 1)],
        "categories": [{"id": n, "name": str(n)} for n in range(1, CLASSES + 1)],
        "annotations": [],
    }
    results: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        here = draw.integers(1, CLASSES + 1, 3)
        boxes = draw_boxes(draw, int(draw.poisson(OBJECTS)))[: DETECTIONS // 2]
        kinds = draw.choice(here, len(boxes))
        for box, category in zip(boxes, kinds.tolist(), strict=True):
            object_ = entry(draw, image, category, box, masks)
            area = float(codes.area(object_["segmentation"])) if masks else float(box[2] * box[3])
            crowd = int(draw.random() < 0.02)
            truth["annotations"].append(
                {**object_, "id": len(truth["annotations"]) + 1, "area": area, "iscrowd": crowd}
            )
        for box, category in zip(np.repeat(boxes, 2, 0), np.repeat(kinds, 2).tolist(), strict=True):
            near = box + draw.normal(0, 0.08, 4) * np.tile(box[2:], 2)
            near[2:] = np.maximum(near[2:], 2)
            near[:2] = np.clip(near[:2], 0, [WIDTH, HEIGHT] - near[2:])
            results.append({**entry(draw, image, category, near, masks), "score": float(draw.beta(4, 2))})
        for box in draw_boxes(draw, DETECTIONS - 2 * len(boxes)):
            category = int(draw.choice(here) if draw.random() < 0.5 else draw.integers(1, CLASSES + 1))
            results.append({**entry(draw, image, category, box, masks), "score": float(draw.beta(2, 4))})
    return truth, results


def ours(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> list[float]:
    values = summarise_detection(detection_rows(truth, results, [image["id"] for image in truth["images"]], [kind]))
    return [values[f"ap{part}{SUFFIX[kind]}"] / 100 for part in PARTS]


def pycocotools(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> list[float]:
    objects = COCO()
    objects.dataset = truth
    objects.createIndex()
    kinds = {"box": "bbox", "mask": "segm", "boundary": "segm"}
    evaluator = Boundary if kind == "boundary" else COCOeval
    evaluation = evaluator(objects, objects.loadRes(results), kinds[kind])
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:6].tolist()


def faster(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> list[float]:
    kinds = {"box": "bbox", "mask": "segm", "boundary": "boundary"}
    objects = faster_coco_eval.COCO()
    objects.dataset = truth
    objects.createIndex()
    evaluation = faster_coco_eval.COCOeval_faster(
        objects, objects.loadRes(results), kinds[kind], boundary_cpu_count=1, rle_iou_max_workers=1
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(value) for value in evaluation.stats[:6]]


class Boundary(COCOeval):
    """The official way, see above."""

    def _prepare(self) -> None:
        super()._prepare()
        for entries in (*self._gts.values(), *self._dts.values()):
            for found in entries:
                found["band"] = band(found["segmentation"])

    def computeIoU(self, image: int, category: int) -> np.ndarray | list:
        iou = super().computeIoU(image, category)
        if not len(iou):
            return iou
        objects, detections = self._gts[image, category], self._dts[image, category]
        best = np.argsort([-d["score"] for d in detections], kind="mergesort")[: self.params.maxDets[-1]]
        bands = codes.iou([detections[n]["band"] for n in best], [o["band"] for o in objects], [0] * len(objects))
        single = np.array([not o["iscrowd"] for o in objects])
        return np.minimum(iou, bands, out=iou, where=single)


def band(code: dict[str, Any]) -> dict[str, Any]:
    inside = codes.decode(code)
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=band_width(inside.shape, 0.02))
    return codes.encode(np.asfortranarray(inside - eroded[1:-1, 1:-1]))


CONTENDERS: dict[str, Callable[..., list[float]]] = {
    "bcd": ours,
    "pycocotools": pycocotools,
    "faster-coco-eval": faster,
}


def measured(name: str, file: Path, kind: str) -> dict[str, Any]:
    """CPU seconds, growth of the peak memory in bytes, and the six numbers of one contender in this process."""
    cv2.setNumThreads(1)
    truth, results = pickle.loads(file.read_bytes())
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, from what is held now
    before, memory = resource.getrusage(resource.RUSAGE_SELF), peak()
    with contextlib.redirect_stdout(io.StringIO()):
        numbers = CONTENDERS[name](truth, results, kind)
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "bytes": peak() - memory, "numbers": numbers}


def peak() -> int:
    """Peak resident memory in bytes since it was last set back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def compared(file: Path, kind: str, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """The contenders one after the other, `repeats` times over, each time in a new process."""
    single = os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for _ in range(repeats):
        for name, runs in found.items():
            command = [sys.executable, __file__, "--measure", name, str(file), kind]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, env=single).stdout))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", default=list(SUFFIX), choices=list(SUFFIX))
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--boundary-images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=3, metavar=("CONTENDER", "FILE", "KIND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, file, kind = options.measure
        print(json.dumps(measured(name, Path(file), kind)))
        return

    packages = ("pycocotools", "faster-coco-eval", "numpy", "opencv-python-headless")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    print(
        "\n| kind | images | code | CPU s | bcd / it | MB | bcd / it | from pycocotools |\n|---|---:|---|" + "---:|" * 5
    )
    for kind in options.kinds:
        images = options.boundary_images if kind == "boundary" else options.images
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "drawn.pickle"
            file.write_bytes(pickle.dumps(drawn(images, kind != "box")))
            found = compared(file, kind, options.repeats)
        median = {
            name: {part: statistics.median(run[part] for run in runs) for part in ("seconds", "bytes")}
            for name, runs in found.items()
        }
        exact = np.array(found["pycocotools"][0]["numbers"])
        for name, own in median.items():
            away = np.abs(np.array(found[name][0]["numbers"]) - exact).max()
            ratio = {part: median["bcd"][part] / own[part] for part in own}
            label = "as the official code" if (name, kind) == ("pycocotools", "boundary") else name
            print(
                f"| {kind} | {images} | {label} | {own['seconds']:.2f} | {ratio['seconds']:.3f} "
                f"| {own['bytes'] / 1e6:.0f} | {ratio['bytes']:.2f} | {away:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
