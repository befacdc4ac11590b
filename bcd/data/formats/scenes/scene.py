"""One synthetic scene: its objects in layers, and what is read off them.

A scene is laid out as a stack of layers and drawn at twice its size. The stack yields one segment map. Colours, label,
instance map and boxes are all read off that map, so they cannot disagree.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from bcd.data.formats.scenes.paint import expose, paint
from bcd.data.formats.scenes.shapes import OBJECTS, Layer, blank, building

cv2.setNumThreads(0)  # scenes are small: threads would only fight with the other processes

CLASSES = ("sky", "ground", "building", "tree", "vehicle", "pole", "sign", "person")
# Poles are stuff because the wires join them, buildings because a row of them has no countable parts.
THINGS = ("tree", "vehicle", "sign", "person")

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
    first: dict[tuple[int, str], int] = {}
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


def contact_sheet(scenes: list[Scene], columns: int) -> np.ndarray:
    """Scenes in rows of `columns`, each row of images above its row of labels: uint8 (H, W, 3) RGB."""
    tiles = []
    for start in range(0, len(scenes), columns):
        row = scenes[start : start + columns]
        for pictures in ([s.image for s in row], [PALETTE[s.label] for s in row]):
            framed = [np.pad(p, ((0, 6), (0, 6), (0, 0)), constant_values=255) for p in pictures]
            tiles.append(np.concatenate(framed, axis=1))
    return np.concatenate(tiles)
