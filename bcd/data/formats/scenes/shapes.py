"""The objects of a synthetic street scene as stacks of binary masks.

Every function draws one object on the ground line `horizon` (int array `(S,)`: the ground's first row in each
column) and returns its layers back to front. Geometry is in fractions of the canvas side S, so a scene keeps
its composition at every size; random numbers come from `rng` alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Horizon = np.ndarray
Tone = tuple[int, int, int]

GLASS: Tone = (70, 85, 105)
RUBBER: Tone = (40, 40, 45)


@dataclass(frozen=True)
class Layer:
    """One evenly coloured part of an object.

    `kind` is the part's class name, `mask` uint8 `(S, S)` with 0 and 1.
    `tone` is the mean RGB colour in 0..255 where it differs from the class's own.
    """

    kind: str
    mask: np.ndarray
    tone: Tone | None = None


def building(rng: np.random.Generator, horizon: Horizon) -> list[Layer]:
    """A block with a flat or pitched roof; its windows are holes that show what is behind."""
    side = len(horizon)
    width, height = (rng.uniform((0.16, 0.2), (0.42, 0.58)) * side).astype(int)
    left = int(rng.uniform(-0.1, 0.95) * side)
    base = ground(horizon, left + width // 2) + int(rng.uniform(0.02, 0.06) * side)
    top = base - height
    mask = blank(side)
    cv2.rectangle(mask, (left, top), (left + width, base), 1, -1)
    if rng.random() < 0.4:
        eaves, rise = width // 14, int(width * rng.uniform(0.15, 0.35))
        fill(mask, [(left - eaves, top), (left + width // 2, top - rise), (left + width + eaves, top)])
    if rng.random() < 0.75:
        punch_windows(rng, mask, left, top, width, height)
    return [Layer("building", mask)]


def punch_windows(rng: np.random.Generator, mask: np.ndarray, left: int, top: int, width: int, height: int) -> None:
    """Clear a regular grid of windows in the upper nine tenths of a wall."""
    pitch = rng.uniform(0.065, 0.11) * len(mask)
    columns, rows = max(2, round(width / pitch)), max(2, round(0.9 * height / pitch))
    opening = rng.uniform(0.4, 0.62, 2) * (width / columns, 0.9 * height / rows)
    for row in range(rows):
        for column in range(columns):
            x = left + (column + 0.5) * width / columns - opening[0] / 2
            y = top + (row + 0.6) * 0.9 * height / rows - opening[1] / 2
            corner = int(x + opening[0]) - 1, int(y + opening[1]) - 1
            cv2.rectangle(mask, (int(x), int(y)), corner, 0, -1)


def tree(rng: np.random.Generator, horizon: Horizon) -> list[Layer]:
    """A trunk under a crown of overlapping blobs or, one time in five, under stacked triangles."""
    x, base, near = stand(rng, horizon)
    height = rng.uniform(0.18, 0.36) * near * len(horizon)
    trunk, crown = blank(len(horizon)), blank(len(horizon))
    upright(trunk, x, int(base - 0.7 * height), base, max(2, round(0.08 * height)))
    if rng.random() < 0.2:
        for low, high, half in ((0.2, 0.65, 0.3), (0.42, 0.85, 0.23), (0.62, 1.0, 0.16)):
            foot, tip, reach = base - low * height, base - high * height, half * height
            fill(crown, [(x - reach, foot), (x, tip), (x + reach, foot)])
    else:
        for _ in range(rng.integers(3, 8)):
            dx, dy = rng.normal(0, (0.2, 0.15)) * height
            radius = int(rng.uniform(0.1, 0.24) * height)
            cv2.circle(crown, (int(x + dx), int(base - 0.72 * height + dy)), radius, 1, -1)
    return [Layer("tree", trunk, (95, 80, 65)), Layer("tree", crown)]


def vehicle(rng: np.random.Generator, horizon: Horizon) -> list[Layer]:
    """A car or a van seen from the side: body and cabin, opaque glass, wheels."""
    x, base, near = stand(rng, horizon)
    length = rng.uniform(0.2, 0.36) * near * len(horizon)
    height = length * rng.uniform(0.4, 0.55)
    # Cabin corners as fractions of the length from the middle: bottom left, top left, top right, bottom right.
    cabin = rng.choice([(-0.3, -0.2, 0.14, 0.28), (-0.48, -0.46, 0.24, 0.36)]) * rng.choice([-1, 1])
    body, glass, wheels = (blank(len(horizon)) for _ in range(3))
    waist, roof, sill = base - 0.55 * height, base - height, base - 0.15 * height
    half = length / 2
    fill(body, [(x - half, sill), (x - half, waist), (x + half, waist), (x + half, sill)])
    rows = (waist, roof, roof, waist)
    fill(body, [(x + c * length, y) for c, y in zip(cabin, rows, strict=True)])
    middle, panes = cabin.mean(), (waist - 1, roof + 0.12 * height, roof + 0.12 * height, waist - 1)
    pane = middle + 0.72 * (cabin - middle)
    fill(glass, [(x + c * length, y) for c, y in zip(pane, panes, strict=True)])
    for offset in (-0.29, 0.29):
        centre = int(x + offset * length), int(base - 0.16 * height)
        cv2.circle(wheels, centre, max(1, round(0.17 * height)), 1, -1)
    return [Layer("vehicle", body), Layer("vehicle", glass, GLASS), Layer("vehicle", wheels, RUBBER)]


def person(rng: np.random.Generator, horizon: Horizon) -> list[Layer]:
    """A walking figure: legs apart, arms away from the torso, head."""
    x, base, near = stand(rng, horizon)
    height = rng.uniform(0.19, 0.3) * near * len(horizon)
    legs, upper = blank(len(horizon)), blank(len(horizon))
    shoulder, hip = base - 0.78 * height, base - 0.44 * height
    limb, lean = max(2, round(0.09 * height)), rng.uniform(-0.05, 0.05) * height
    for direction in (-1, 1):
        foot = x + direction * rng.uniform(0.06, 0.2) * height
        segment(legs, (x + direction * 0.05 * height, hip), (foot, base), limb)
        hand = (x + direction * rng.uniform(0.16, 0.3) * height, hip + rng.uniform(-0.3, 0.05) * height)
        segment(upper, (x + lean + direction * 0.1 * height, shoulder + limb / 2), hand, max(2, limb - 1))
    wide, narrow = 0.15 * height, 0.1 * height
    fill(
        upper,
        [(x + lean - wide, shoulder), (x + lean + wide, shoulder), (x + narrow, hip), (x - narrow, hip)],
    )
    head = int(x + lean), int(base - 0.89 * height)
    cv2.circle(upper, head, max(2, round(0.11 * height)), 1, -1)
    return [Layer("person", legs), Layer("person", upper)]


def sign(rng: np.random.Generator, horizon: Horizon) -> list[Layer]:
    """A ring or an open triangle on a post (the post is of class pole); the hole shows what is behind."""
    x, base, near = stand(rng, horizon)
    radius = max(5, round(rng.uniform(0.055, 0.09) * near * len(horizon)))
    centre = base - int(rng.uniform(0.13, 0.3) * near * len(horizon)) - radius
    post, plate = blank(len(horizon)), blank(len(horizon))
    rim = max(2, round(0.3 * radius))
    if rng.random() < 0.5:
        cv2.circle(plate, (x, centre), radius, 1, -1)
        cv2.circle(plate, (x, centre), radius - rim, 0, -1)
    else:
        up = rng.choice([-1, -1, 1])
        for reach, value in ((radius * 1.15, 1), (radius * 1.15 - 1.6 * rim, 0)):
            foot, tip = centre - up * 0.5 * reach, centre + up * reach
            fill(plate, [(x - 0.87 * reach, foot), (x, tip), (x + 0.87 * reach, foot)], value)
    upright(post, x, centre + radius, base, max(2, round(0.16 * radius)))
    return [Layer("pole", post), Layer("sign", plate)]


def lamp(rng: np.random.Generator, horizon: Horizon) -> list[Layer]:
    """A lone post with an arm."""
    x, base, near = stand(rng, horizon)
    top = base - int(rng.uniform(0.25, 0.45) * near * len(horizon))
    mask = blank(len(horizon))
    thickness = max(2, round(0.012 * near * len(horizon)))
    upright(mask, x, top, base, thickness)
    arm = int(rng.uniform(0.03, 0.08) * len(horizon)) * rng.choice([-1, 1])
    cv2.line(mask, (x, top), (x + int(arm), top), 1, thickness)
    return [Layer("pole", mask)]


def power_line(rng: np.random.Generator, horizon: Horizon) -> list[Layer]:
    """Poles with crossbars and the wires that sag between them and out of the picture."""
    side = len(horizon)
    mask = blank(side)
    spacing = rng.uniform(0.3, 0.65) * side
    first = rng.uniform(-0.1, 0.4) * side - spacing
    height, depth = rng.uniform((0.42, 0.0), (0.72, 0.2)) * side
    wire, thick = max(2, round(0.01 * side)), max(2, round(rng.uniform(0.01, 0.026) * side))
    bar, sag = rng.uniform((0.02, 0.04), (0.05, 0.14)) * side
    tops = []
    for number in range(int(side / spacing) + 4):
        x = int(first + number * spacing + rng.normal(0, 0.03) * side)
        base = ground(horizon, x) + int(depth)
        top = base - int(height * rng.uniform(0.92, 1.08))
        upright(mask, x, top, base, thick)
        cv2.line(mask, (int(x - bar), top + thick), (int(x + bar), top + thick), 1, max(2, thick // 2))
        tops.append((x, top + thick))
    ends = (-bar, bar) if rng.random() < 0.25 else (0.0,)
    along = np.linspace(0, 1, 17)
    for (x0, y0), (x1, y1) in zip(tops, tops[1:], strict=False):
        for end in ends:
            across = x0 + end + along * (x1 - x0)
            down = y0 + along * (y1 - y0) + 4 * sag * along * (1 - along)
            points = np.stack([across, down], 1).round().astype(np.int32)
            cv2.polylines(mask, [points], False, 1, wire)
    return [Layer("pole", mask)]


# How many of each object a scene holds: the shape and the probabilities of 0, 1, 2 and 3 of them.
OBJECTS: dict[Callable[[np.random.Generator, Horizon], list[Layer]], tuple[float, float, float, float]] = {
    building: (0.2, 0.35, 0.3, 0.15),
    tree: (0.2, 0.35, 0.3, 0.15),
    vehicle: (0.2, 0.35, 0.3, 0.15),
    person: (0.2, 0.3, 0.3, 0.2),
    sign: (0.2, 0.35, 0.3, 0.15),
    lamp: (0.75, 0.25, 0.0, 0.0),
    power_line: (0.35, 0.65, 0.0, 0.0),
}


def stand(rng: np.random.Generator, horizon: Horizon) -> tuple[int, int, float]:
    """A place on the ground: column, row of the foot, and a size factor that grows towards the viewer."""
    side = len(horizon)
    x, near = int(rng.uniform(-0.02, 1.02) * side), rng.random()
    row = ground(horizon, x)
    return x, row + int(near * 0.45 * (side - row)), 0.75 + 0.75 * near


def ground(horizon: Horizon, x: int) -> int:
    """The ground's first row at column `x`, which may lie outside the picture."""
    return int(horizon[min(max(x, 0), len(horizon) - 1)])


def blank(side: int) -> np.ndarray:
    return np.zeros((side, side), np.uint8)


def fill(mask: np.ndarray, corners: list[tuple[float, float]], value: int = 1) -> None:
    cv2.fillPoly(mask, [np.array(corners).round().astype(np.int32)], value)


def upright(mask: np.ndarray, x: int, top: int, base: int, width: int) -> None:
    """A post of exactly `width` columns, which cv2.line does not give for even widths."""
    left = x - width // 2
    cv2.rectangle(mask, (left, top), (left + width - 1, base), 1, -1)


def segment(mask: np.ndarray, start: tuple[float, float], end: tuple[float, float], thickness: int) -> None:
    first, last = ((round(float(x)), round(float(y))) for x, y in (start, end))
    cv2.line(mask, first, last, 1, thickness)
