"""What is done of a folder that a model is applied to, so that the same call does what is left, and may be nothing.

The file `predicted.jsonl` lies in the folder of results. Its first line says of which model and images the results are,
each other one which image is done, the hash of its bytes, and what was found in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bcd.errors import UserError
from bcd.files import TEMPORARY, atomic_write, read_bytes, writing

NAME = "predicted.jsonl"


@dataclass(frozen=True)
class Done:
    """An image that is predicted: the hash of its file's bytes, and what was found in it, as JSON values."""

    sha256: str
    found: Mapping[str, Any] | None


def begin(out: Path, what: str, *, force: bool) -> dict[str, Done]:
    """By the name of an image what earlier calls noted of it; {} where nothing was begun.

    what: is predicted; only calls that say the same continue each other. force: begin anew, whatever is there.

    Raises UserError, unless `force`, for an `out` that holds other things.
    """
    path, done = out / NAME, dict[str, Done]()
    if path.exists() and not force:
        theirs, done = _read(path)
        if theirs != what:
            raise UserError(
                f"--out {out}: holds what was begun with another model or other images; say --force to begin anew, or "
                "name another folder"
            )
    elif not force and out.exists() and any(not TEMPORARY.fullmatch(one.name) for one in out.iterdir()):
        raise UserError(f"--out {out}: is there and not empty; say --force to write into it, or name another folder")
    write(out, what, done)  # anew: a line that a kill has cut off would spoil the next one
    return done


def note(out: Path, image: str, done: Done) -> None:
    """Note that an image is done."""
    path = out / NAME
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(_line(image, done))


def write(out: Path, what: str, done: Mapping[str, Done]) -> None:
    """The whole file, of images in the order of their names."""
    lines = [f"{json.dumps({'what': what})}\n", *(_line(image, done[image]) for image in sorted(done))]
    atomic_write(out / NAME, "".join(lines))


def _line(image: str, done: Done) -> str:
    return f"{json.dumps({'image': image} | asdict(done))}\n"


def _read(path: Path) -> tuple[str, dict[str, Done]]:
    """What is predicted, "" where that cannot be read, and what is done of it, up to a line that a kill has cut off."""
    what, done = "", dict[str, Done]()
    try:
        for line in map(json.loads, read_bytes(path).splitlines()):
            if what:
                done[line["image"]] = Done(line["sha256"], line["found"])
            else:
                what = line["what"]
    except (ValueError, TypeError, KeyError):
        pass
    return what, done
