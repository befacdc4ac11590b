"""What is done of a folder that a model is applied to, so that an interrupted call continues.

The file `unfinished.jsonl` lies in the folder of results as long as something is left to do. Its first line says of
which model and images the results are, each other one which image is done and what was found in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bcd.errors import UserError
from bcd.files import TEMPORARY, atomic_write, read_bytes, writing

NAME = "unfinished.jsonl"


def begin(out: Path, what: str, *, force: bool) -> dict[str, Any]:
    """Name of an image -> what earlier calls noted of it; {} where nothing was begun.

    what: is predicted; only calls that say the same continue each other. force: begin anew, whatever is there.

    Raises UserError, unless `force`, for an `out` that holds other things.
    """
    path, done = out / NAME, dict[str, Any]()
    if path.exists() and not force:
        theirs, done = _read(path)
        if theirs != what:
            raise UserError(
                f"--out {out}: holds what was begun with another model or other images; say --force to begin anew, or "
                "name another folder"
            )
    elif not force and out.exists() and any(not TEMPORARY.fullmatch(one.name) for one in out.iterdir()):
        raise UserError(f"--out {out}: is there and not empty; say --force to write into it, or name another folder")
    # Written anew: a line that a kill has cut off would spoil the next one.
    lines = [{"what": what}, *({"image": image, "found": found} for image, found in done.items())]
    atomic_write(path, "".join(f"{json.dumps(line)}\n" for line in lines))
    return done


def note(out: Path, image: str, found: Mapping[str, Any] | None) -> None:
    """Note that an image is done; `found` are JSON values."""
    path = out / NAME
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps({'image': image, 'found': found})}\n")


def end(out: Path) -> None:
    """Nothing is left to do."""
    (out / NAME).unlink(missing_ok=True)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """What is predicted, "" where that cannot be read, and what is done of it, up to a line that a kill has cut off."""
    what, done = "", dict[str, Any]()
    try:
        for line in map(json.loads, read_bytes(path).splitlines()):
            if what:
                done[line["image"]] = line["found"]
            else:
                what = line["what"]
    except (ValueError, TypeError, KeyError):
        pass
    return what, done
