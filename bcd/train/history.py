"""What a training says as it goes: history.jsonl has the mean losses of each logging interval, one line each.

validation.jsonl has the metrics of each evaluation in between, where the recipe asks for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bcd.errors import UserError
from bcd.files import atomic_write, writing

FILE = "history.jsonl"
VALIDATION = "validation.jsonl"


def add_line(folder: Path, values: Mapping[str, float], file: str = FILE) -> None:
    """Add a line: `step`, and `lr`, `loss` and each of the losses in it, or metrics.

    Raises UserError when the disk is full.
    """
    path = folder / file
    with writing(path), path.open("a", encoding="utf-8") as history:
        history.write(json.dumps(values, sort_keys=True) + "\n")


def read(folder: Path, file: str = FILE) -> list[dict[str, float]]:
    """The whole lines, in the order of their steps; one that is just being written is left out.

    Raises UserError naming the line that is none of ours.
    """
    path = folder / file
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.endswith(b"\n")]


def _parse(path: Path, number: int, line: bytes) -> dict[str, float]:
    try:
        values = json.loads(line)
        if "step" in values and all(isinstance(value, int | float) for value in values.values()):
            return dict(values)
    except (ValueError, TypeError, AttributeError, RecursionError):  # no JSON, or no mapping
        pass
    raise UserError(f"{path}: line {number} is damaged; delete the line and run the same command again")


def cut_after(folder: Path, step: int, file: str = FILE) -> None:
    """Drop lines that a killed attempt wrote after its last checkpoint (the last one may be half a line).

    Raises what `read` raises; for step 0 nothing is read.
    """
    path = folder / file
    if not path.exists():
        return
    kept = [line for line in read(folder, file) if line["step"] <= step] if step else []
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in kept)
    if text.encode() != path.read_bytes():
        atomic_write(path, text)
