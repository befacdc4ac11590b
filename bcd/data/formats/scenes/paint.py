"""The look of a synthetic scene: colours, textures, light and camera."""

from functools import lru_cache

import cv2
import numpy as np

from bcd.data.formats.scenes.shapes import Layer, blank

# Mean RGB of a class; a layer's own colour strays from it by SPREAD, so colour alone does not decide either.
TONES = {
    "sky": (150, 175, 215),
    "ground": (115, 105, 90),
    "building": (165, 135, 120),
    "tree": (70, 125, 60),
    "vehicle": (95, 70, 130),
    "pole": (75, 65, 60),
    "sign": (210, 85, 70),
    "person": (185, 140, 70),
}
SPREAD = 26


def paint(rng: np.random.Generator, stack: np.ndarray, layers: list[Layer]) -> np.ndarray:
    """Colour every layer where it is in front: float32 (S, S, 3), about 0..255.

    `stack` uint8 (S, S) is the index of the front-most layer at each pixel.
    """
    clouds = [noise(rng, 3 * len(stack) // 4, cells) for cells in ((4, 9, 19), (16, 34, 70))]
    colours, tints = np.empty((2, len(layers), 3), np.float32)
    pattern = np.empty(stack.shape, np.float32)
    for number, layer in enumerate(layers):
        x, y, width, height = cv2.boundingRect(layer.mask)
        window = slice(y, y + height), slice(x, x + width)
        np.copyto(pattern[window], texture(rng, clouds, height, width), where=stack[window] == number)
        colours[number] = np.clip(rng.normal(layer.tone or TONES[layer.kind], SPREAD), 12, 243)
        # A pattern that is nearly, but not quite, grey changes the hue a little as well.
        tints[number] = rng.uniform(0.6, 1.4, 3) * rng.uniform(2, 26)
    canvas = np.take(tints, stack, axis=0)
    canvas *= pattern[:, :, None]
    canvas += np.take(colours, stack, axis=0)
    return canvas


def texture(rng: np.random.Generator, clouds: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Noise, stripes or both, drawn for any class alike: float32 (height, width) of about unit range."""
    cloud = clouds[rng.integers(len(clouds))]
    y, x = rng.integers(0, [len(cloud) - height + 1, len(cloud) - width + 1])
    pattern = cloud[y : y + height, x : x + width] * np.float32(rng.choice([0.3, 1.0]))
    if rng.random() < 0.45:
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.025, 0.1) * len(cloud) / 1.5
        down, across = np.arange(height) * np.sin(angle) / period, np.arange(width) * np.cos(angle) / period
        phase = down.astype(np.float32)[:, None] + (across + rng.random()).astype(np.float32)
        phase -= np.floor(phase)
        pattern = pattern * np.float32(0.5) + (np.abs(phase - np.float32(0.5)) * 4 - 1)
    return pattern


def noise(rng: np.random.Generator, side: int, cells: tuple[int, ...]) -> np.ndarray:
    """Sum of bilinearly enlarged random grids, one per octave, finer ones fainter: float32 (2 side, 2 side)."""
    total = np.zeros((side, side))
    for octave, count in enumerate(cells):
        weight = bilinear_weights(side, count)
        total += 0.75**octave * (weight @ rng.normal(0, 0.8, (count, count)) @ weight.T)
    # Matrix products differ in their last bits between CPUs; rounding keeps the scenes the same.
    total = (np.rint(total * 4096) / 4096).astype(np.float32)
    return total.repeat(2, axis=0).repeat(2, axis=1)


@lru_cache(maxsize=16)
def bilinear_weights(side: int, count: int) -> np.ndarray:
    """The matrix that enlarges `count` values to `side` by linear interpolation: float64 (side, count)."""
    position = np.linspace(0, count - 1.001, side)
    left = position.astype(int)
    weights, rows = np.zeros((side, count)), np.arange(side)
    weights[rows, left] = 1 - (position - left)
    weights[rows, left + 1] = position - left
    return weights


def expose(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Light and camera: reduction to half size, haze, light gradient, cast shadow, blur, sensor noise.

    `canvas` float32 (S, S, 3), 0..255; returns uint8 (S / 2, S / 2, 3).
    """
    side = len(canvas) // 2
    image: np.ndarray = cv2.resize(to_uint8(canvas), (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    haze = rng.uniform(0, 0.25)
    image *= np.float32(1 - haze)
    image += (haze * rng.uniform(70, 220, 3)).astype(np.float32)
    down, across = rng.uniform(-0.45, 0.45, 2)
    ramp = np.linspace(-0.5, 0.5, side)
    light = (rng.uniform(0.75, 1.15) + down * ramp[:, None] + across * ramp).astype(np.float32)
    if rng.random() < 0.6:
        corners = rng.uniform(-0.2, 1.2, (rng.integers(4, 8), 2)) * side
        light[shade(corners, side)] *= np.float32(rng.uniform(0.55, 0.85))
    image *= light[:, :, None]
    if rng.random() < 0.7:
        # On 8 bits OpenCV's blur is exact integer arithmetic, hence the same on every CPU.
        image = cv2.GaussianBlur(to_uint8(image), (5, 5), rng.uniform(0.4, 0.95))
    grain = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 10))
    return to_uint8(image + grain)


def shade(corners: np.ndarray, side: int) -> np.ndarray:
    """The convex hull of `corners` (K, 2) as a bool (side, side) mask."""
    mask = blank(side)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners.astype(np.int32)), 1)
    return mask > 0


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Round and clip to 0..255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
