"""Synthetic street scenes: a small, fully labelled benchmark that needs no download.

A scene is laid out as a stack of layers and drawn at twice its size. The stack yields one segment map, and
colours, semantic label, instance map and boxes are all read off that map, so they cannot disagree.
`docs/reference/scenes.md` describes what the scenes contain and why.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from bcd.data import decode, tree
from bcd.data.formats.scene_paint import expose, paint
from bcd.data.formats.scene_shapes import OBJECTS, Layer, blank, building
from bcd.data.sample import Sample
from bcd.files import writing

cv2.setNumThreads(0)  # scenes are small: threads would only fight with the other processes

CLASSES = ("sky", "ground", "building", "tree", "vehicle", "pole", "sign", "person")
# Poles are stuff because the wires join them, buildings because a row of them has no countable parts.
THINGS = ("tree", "vehicle", "sign", "person")
VOID = None  # every pixel is labelled; the scenes use no ignore value

# A thing that shows less than this many pixels is left out of the scene: nobody could find it.
MIN_VISIBLE = 12
OVERSAMPLING = 2

PALETTE = np.array(
    [
        (70, 130, 180),
        (190, 150, 110),
        (120, 120, 120),
        (60, 140, 60),
        (0, 0, 150),
        (250, 200, 50),
        (220, 60, 160),
        (220, 20, 60),
    ],
    np.uint8,
)


@dataclass(frozen=True)
class Scene:
    """One scene of side `size`.

    image    uint8 (size, size, 3) RGB
    label    uint8 (size, size), index into CLASSES
    instance uint16 (size, size), 0 = stuff, else the id of a thing
    things   [{"id": 1.., "class": index into CLASSES}, ...], one entry per id in `instance`, ascending
    """

    image: np.ndarray
    label: np.ndarray
    instance: np.ndarray
    things: list[dict[str, int]]


def render(seed: int, index: int, size: int = 96, *, split: str = "train") -> Scene:
    """Scene `index` of `split`: a pure function of its arguments, the same in every process.

    The split enters by its name, so adding a split leaves the scenes of the others alone.
    """
    key = np.random.SeedSequence([seed, zlib.crc32(split.encode()), index])
    rng = np.random.Generator(np.random.PCG64(key))
    objects = compose(rng, OVERSAMPLING * size)
    layers = [layer for parts in objects for layer in parts]
    # A segment is what an object shows of one class: the sign is one and its post another.
    keys = [(number, layer.kind) for number, parts in enumerate(objects) for layer in parts]
    first = {}
    segment_of = np.array([first.setdefault(key, n) for n, key in enumerate(keys)], np.uint8)
    stack = stack_layers(layers)
    segments = reduce_segments(segment_of[stack])
    visible = np.unique(segments)
    things = [n for n in visible if layers[n].kind in THINGS]
    identity, classes = np.zeros(len(layers), np.uint16), np.zeros(len(layers), np.uint8)
    identity[things] = np.arange(1, len(things) + 1)
    classes[visible] = [CLASSES.index(layers[n].kind) for n in visible]
    return Scene(
        image=expose(rng, paint(rng, stack, layers)),
        label=classes[segments],
        instance=identity[segments],
        things=[{"id": int(identity[n]), "class": int(classes[n])} for n in things],
    )


def compose(rng: np.random.Generator, side: int) -> list[list[Layer]]:
    """The objects of a scene, back to front, without things of which too little would show."""
    horizon = ground_line(rng, side)
    earth = (np.arange(side)[:, None] >= horizon).astype(np.uint8)
    placed = []
    for shape, chances in OBJECTS.items():
        for _ in range(rng.choice(len(chances), p=chances)):
            # Any order is possible, but buildings mostly stand behind, or they would hide everything.
            depth = rng.random() - 0.6 * (shape is building)
            placed.append((depth, shape(rng, horizon)))
    objects = [[Layer("sky", blank(side) + 1)], [Layer("ground", earth)]]
    objects += [parts for _, parts in sorted(placed, key=lambda entry: entry[0])]
    hidden = hidden_things(objects)
    return [parts for number, parts in enumerate(objects) if number not in hidden]


def ground_line(rng: np.random.Generator, side: int) -> np.ndarray:
    """First row of the ground in each column: sloped, bent and slightly wavy; int64 (side,)."""
    x = np.linspace(-0.5, 0.5, side)
    level, slope, bend = rng.uniform((0.48, -0.15, -0.25), (0.74, 0.15, 0.25))
    wave = 0.012 * np.sin(2 * np.pi * (x * rng.uniform(0.8, 2.5) + rng.random()))
    return (side * (level + slope * x + bend * (x * x - 0.08) + wave)).astype(int)


def hidden_things(objects: list[list[Layer]]) -> set[int]:
    """Numbers of the objects whose thing keeps fewer than MIN_VISIBLE pixels uncovered."""
    layers = [(number, layer) for number, parts in enumerate(objects) for layer in parts]
    shown = np.bincount(stack_layers([layer for _, layer in layers]).ravel(), minlength=len(layers))
    area: dict[int, int] = {}
    for (number, layer), count in zip(layers, shown, strict=True):
        if layer.kind in THINGS:
            area[number] = area.get(number, 0) + int(count)
    return {number for number, count in area.items() if count < MIN_VISIBLE * OVERSAMPLING**2}


def stack_layers(layers: list[Layer]) -> np.ndarray:
    """Index of the front-most layer at every pixel: uint8 (S, S)."""
    stack = np.zeros_like(layers[0].mask)
    for number, layer in enumerate(layers):
        stack[layer.mask > 0] = number
    return stack


def reduce_segments(segments: np.ndarray) -> np.ndarray:
    """Halve a segment map: the majority of each 2x2 block, in a tie the front-most (highest) segment.

    Ties in favour of the front keep a wire unbroken that is two pixels wide at double size.
    """
    rows, columns = segments.shape[0] // 2, segments.shape[1] // 2
    blocks = segments.reshape(rows, 2, columns, 2).transpose(1, 3, 0, 2).reshape(4, rows, columns)
    a, b, c, d = np.sort(blocks, axis=0)
    return np.where(c == d, d, np.where(b == c, b, np.where(a == b, a, d)))


def generate(
    root: Path,
    *,
    seed: int,
    size: int,
    splits: dict[str, int],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `splits` (name to number of scenes) as a dataset of side `size` under directory `root`.

    Files: images/<split>/00000.png (8-bit RGB), labels/<split>/00000.png (8-bit class index),
    instances/<split>/00000.png (16-bit thing id, 0 = stuff) and instances_<split>.json (COCO). Bytes depend
    on the arguments alone. `progress(done, total)` is called after every scene. Raises UserError when the
    disk is full.
    """
    total, done = sum(splits.values()), 0
    for split, count in splits.items():
        folders = {kind: root / kind / split for kind in ("images", "labels", "instances")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        annotations: list[dict] = []
        for index in range(count):
            scene, name = render(seed, index, size, split=split), f"{index:05d}.png"
            write_png(folders["images"] / name, scene.image[:, :, ::-1])
            write_png(folders["labels"] / name, scene.label)
            write_png(folders["instances"] / name, scene.instance)
            annotations += coco_annotations(scene, image_id=index + 1, first_id=len(annotations) + 1)
            done += 1
            if progress is not None:
                progress(done, total)
        document = {
            "images": [
                {"id": n + 1, "file_name": f"images/{split}/{n:05d}.png", "width": size, "height": size}
                for n in range(count)
            ],
            "categories": [{"id": n, "name": name} for n, name in enumerate(THINGS, start=1)],
            "annotations": annotations,
        }
        path = root / annotation_file(split)
        with writing(path):
            path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n")


def coco_annotations(scene: Scene, *, image_id: int, first_id: int) -> list[dict]:
    """COCO annotations of a scene's things: compressed RLE, box (x, y, width, height) and area in pixels."""
    annotations = []
    for number, thing in enumerate(scene.things):
        mask = np.asfortranarray(scene.instance == thing["id"], np.uint8)
        code = coco_mask.encode(mask)
        annotations.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": THINGS.index(CLASSES[thing["class"]]) + 1,
                "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode("ascii")},
                "bbox": [float(edge) for edge in coco_mask.toBbox(code)],
                "area": int(coco_mask.area(code)),
                "iscrowd": 0,
            }
        )
    return annotations


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an 8- or 16-bit PNG, colour in OpenCV's BGR order; weak compression, for speed."""
    _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with writing(path):
        path.write_bytes(data.tobytes())


def samples(files: tree.Tree, split: str) -> list[Sample]:
    """The split's scenes in index order. Raises UserError when a scene lacks its label."""
    found = tree.paired(files, (f"images/{split}/", ".png"), (f"labels/{split}/", ".png"))
    return [replace(sample, name=f"{split}/{sample.name}.png") for sample in found]


def annotation_file(split: str) -> str:
    """Path, below the dataset's folder, of the split's COCO file."""
    return f"instances_{split}.json"


def image_path(split: str, file_name: str) -> str:
    """Path, below the dataset's folder, of an image of the COCO file, which names it by just that."""
    return file_name


def contact_sheet(scenes: list[Scene], columns: int) -> np.ndarray:
    """Scenes in rows of `columns`, each row of images above its row of labels: uint8 (H, W, 3) RGB."""
    tiles = []
    for start in range(0, len(scenes), columns):
        row = scenes[start : start + columns]
        for pictures in ([s.image for s in row], [PALETTE[s.label] for s in row]):
            framed = [np.pad(p, ((0, 6), (0, 6), (0, 0)), constant_values=255) for p in pictures]
            tiles.append(np.concatenate(framed, axis=1))
    return np.concatenate(tiles)


read_label = decode.read_label  # the stored values are the class ids
