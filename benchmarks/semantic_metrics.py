"""CPU time of the semantic metrics of one image, beside a form that takes one class after the other.

    python benchmarks/semantic_metrics.py [--size 512 1024] [--rounds 7] [--labels FOLDER]

The maps are drawn: a street, and soft fields of all classes with poles and void; predictions are wrong in soft places.
Noise is put on top. --labels takes the label maps of a folder (PNG of class ids, 255 is void) instead, resized to the
nearest pixel, and bends them for a prediction. `plain_semantic.py` has the plain form, which tests hold equal to ours.
It is the one that the project had before. One thread; the best of the rounds, in which both take turns.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import plain_semantic as plain

from bcd.metrics import MetricOptions, image_counts
from bcd.metrics.contours import contour_counts
from bcd.metrics.regions import region_counts
from bcd.metrics.semantic import overlap_counts

CLASSES = 19
Maps = tuple[np.ndarray, np.ndarray]  # prediction and label
PARTS = ("miou, macc, biou, trimaps", "bf3", "conn, frag", "all")


def soft(rng: np.random.Generator, size: tuple[int, int], width: float) -> np.ndarray:
    """A random field of unit variance."""
    field = cv2.GaussianBlur(rng.standard_normal(size, np.float32), (0, 0), width)
    return field / field.std()


def drawn(size: tuple[int, int], classes: int) -> Maps:
    rng = np.random.default_rng(0)
    fields = [soft(rng, size, 40) + 0.4 * soft(rng, size, 8) for _ in range(classes)]
    label = np.argmax(fields, 0).astype(np.uint8)
    pred = np.argmax([field + 0.3 * soft(rng, size, 6) for field in fields], 0).astype(np.uint8)
    for x in range(20, size[1], 60):
        label[size[0] // 5 : size[0] * 4 // 5, x : x + 3] = 5 % classes
    label[soft(rng, size, 10) > 2] = 255
    return pred, label


def street(size: tuple[int, int], classes: int) -> np.ndarray:
    """A label map of a few wide classes and eighty things, as photographs of streets have."""
    rng = np.random.default_rng(0)
    y, x = np.indices(size) / np.array(size)[:, None, None]
    label = np.digitize(y + 0.1 * soft(rng, size, 60), [0.25, 0.5, 0.6, 0.75]).astype(np.uint8)
    for kind in rng.integers(4, classes, 80).tolist():
        centre, axes = rng.integers(0, size[::-1]), rng.integers(2, [size[1] // 20, size[0] // 8])
        cv2.ellipse(label, centre.tolist(), axes.tolist(), int(rng.integers(180)), 0, 360, kind, -1)
    label[-size[0] // 10 :] = 255
    return label


def bent(label: np.ndarray) -> Maps:
    """For a label map a prediction that has its pixels moved by some way."""
    size, rng = label.shape, np.random.default_rng(0)
    y, x = np.indices(size, np.float32)
    pred = cv2.remap(label, x + 3 * soft(rng, size, 6), y + 3 * soft(rng, size, 6), cv2.INTER_NEAREST)
    return np.where(pred == 255, 0, pred).astype(np.uint8), label


def noisy(maps: Maps, share: float, classes: int) -> Maps:
    rng, (pred, label) = np.random.default_rng(1), maps
    return np.where(rng.random(pred.shape) < share, rng.integers(0, classes, pred.shape), pred).astype(np.uint8), label


def cases(options: argparse.Namespace) -> Iterator[tuple[str, Maps]]:
    size = options.size[0], options.size[1]
    if options.labels:
        for path in sorted(options.labels.glob("*.png"))[:5]:
            label = cv2.resize(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), size[::-1], interpolation=cv2.INTER_NEAREST)
            yield path.name, bent(label)
        return
    many, few = drawn(size, CLASSES), drawn(size, 2)
    yield "19 classes, a street", bent(street(size, CLASSES))
    yield "19 classes, all everywhere", many
    yield "19 classes, 10 % noise", noisy(many, 0.1, CLASSES)
    yield "19 classes, all noise", noisy(many, 1, CLASSES)
    yield "2 classes", few
    yield "2 classes, 10 % noise", noisy(few, 0.1, 2)
    yield "2 classes, all noise", noisy(few, 1, 2)
    yield "one class", (np.zeros(size, np.uint8), np.zeros(size, np.uint8))


def parts(pred: np.ndarray, label: np.ndarray) -> Iterator[tuple[Callable, Callable]]:
    """Ours and the plain form of each of PARTS."""
    options, valid = MetricOptions(), label != 255
    known = [np.where(valid, ids, np.uint8(255)) for ids in (pred, label)]
    present = plain.contours(pred, label, CLASSES, options)["bf3.den"] > 0
    yield lambda: overlap_counts(*known, valid, CLASSES, options), lambda: plain.overlaps(pred, label, CLASSES, options)
    yield lambda: contour_counts(*known, present, options.bf), lambda: plain.contours(pred, label, CLASSES, options)
    yield (
        lambda: region_counts(pred, label, valid, classes=CLASSES, min_region=options.min_region),
        lambda: plain.regions(pred, label, CLASSES, options),
    )
    yield lambda: image_counts(pred, label, classes=CLASSES), lambda: plain.image_counts(pred, label, CLASSES, options)


def milliseconds(calls: tuple[Callable, ...], rounds: int) -> list[float]:
    """The best CPU time of each call."""
    taken = np.empty((rounds, len(calls)))
    for row in taken:
        for i, call in enumerate(calls):
            begin = time.process_time()
            call()
            row[i] = time.process_time() - begin
    return list(1e3 * taken.min(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[512, 1024], help="height and width")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--labels", type=Path, help="folder of label maps")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    print("| maps | metrics | ours ms | one class after the other ms | ratio |\n|---|---|---:|---:|---:|")
    for name, maps in cases(options):
        for part, calls in zip(PARTS, parts(*maps), strict=True):
            ours, other = milliseconds(calls, options.rounds)
            print(f"| {name} | {part} | {ours:.1f} | {other:.1f} | {ours / other:.2f} |", flush=True)


if __name__ == "__main__":
    main()
