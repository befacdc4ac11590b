"""How the losses of a run went, short enough for a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bcd.train.history import FILE, read

POINTS = 60  # of a curve: more do not show at the width of a page


def curve(folder: Path, file: str = FILE) -> dict[str, Any]:
    """`steps`, and by the name of each loss its `values` there; None where a loss has none that is finite.

    Neighbouring lines of the file are averaged until POINTS are left; a point stands at the last step of its
    lines. Raises UserError naming a damaged line.
    """
    lines = read(folder, file)
    parts = _parts(lines, POINTS)
    names = sorted({name for line in lines for name in line} - {"step"})
    return {
        "steps": [int(part[-1]["step"]) for part in parts],
        "values": {name: [_mean(part, name) for part in parts] for name in names},
    }


def _parts(lines: Sequence[Mapping[str, float]], most: int) -> list[Sequence[Mapping[str, float]]]:
    """`lines` in at most so many runs of neighbours, as equal in length as can be."""
    count = min(most, len(lines))
    bounds = [i * len(lines) // count for i in range(count + 1)] if count else []
    return [lines[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]


def _mean(part: Sequence[Mapping[str, float]], name: str) -> float | None:
    found = [line[name] for line in part if name in line and math.isfinite(line[name])]
    return float(f"{fmean(found):.4g}") if found else None
