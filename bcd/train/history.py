"""history.jsonl of a run: the mean losses of each logging interval, one line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bcd.files import atomic_write

FILE = "history.jsonl"


def add_line(folder: Path, values: Mapping[str, float]) -> None:
    """Add a line: `step`, `lr`, `loss` and each of the losses in it."""
    with (folder / FILE).open("a", encoding="utf-8") as history:
        history.write(json.dumps(values, sort_keys=True) + "\n")


def cut_after(folder: Path, step: int) -> None:
    """Drop lines that a killed attempt wrote after its last checkpoint (the last one may be half a line)."""
    path = folder / FILE
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    if kept != lines:
        atomic_write(path, "".join(line + "\n" for line in kept))
