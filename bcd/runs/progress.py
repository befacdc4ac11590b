"""state.pt of an unfinished run: how far it came, who wrote that, and a checksum over all of it.

    bcd-state <sha256 of everything below>
    {"made_by": {...}, "spec": "...", "step": 9}
    what `bcd.train.checkpoint` makes of a learner

It is one file, so a kill leaves the state before or the state after. `bcd plan` reads the second line only.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from bcd.errors import UserError
from bcd.files import atomic_write
from bcd.runs.jsonfile import Json, parse_as

STATE = "state.pt"
MAGIC = b"bcd-state "
FIRST_LINE = len(MAGIC) + 64 + 1
OLDER = b"PK\x03\x04"  # how states began before they had these lines
LONGEST_LINE = 10_000


class Progress(Json):
    """What a train state says of itself.

    spec     hash of the run's spec
    step     steps that are done
    made_by  hash of the code, and versions of the packages, that did all of these steps; empty in an older state
    """

    spec: str
    step: int
    made_by: dict[str, str]


def why_anew(found: Progress, made_by: Mapping[str, str]) -> str:
    """Why a run cannot go on from a state, as its steps were made by something else than `made_by`; or ""."""
    if not found.made_by:
        return "its train state is of an older version of this program: starting anew"
    changed = [what for what in made_by if found.made_by.get(what) != made_by[what]]
    if not changed:
        return ""
    has = "has" if len(changed) == 1 else "have"
    return f"{' and '.join(changed)} {has} changed since step {found.step} was saved: starting anew"


def write_state(folder: Path, progress: Progress, write: Callable[[io.BytesIO], object]) -> None:
    """Write `state.pt` with what `write` puts into the file that it is given; the old state stays until then."""
    buffer = io.BytesIO()
    buffer.write(MAGIC + b"0" * 64 + b"\n")
    buffer.write(json.dumps(progress.model_dump(), sort_keys=True).encode() + b"\n")
    write(buffer)
    view = buffer.getbuffer()
    view[len(MAGIC) : FIRST_LINE - 1] = hashlib.sha256(view[FIRST_LINE:]).hexdigest().encode()
    atomic_write(folder / STATE, view)


def read_progress(folder: Path) -> Progress | None:
    """What the folder's train state says of itself, None without one; its checksum is for `read_state` to compare.

    Raises UserError for what is no state, or that of another run.
    """
    path = folder / STATE
    if not path.exists():
        return None
    with path.open("rb") as file:
        first = file.read(FIRST_LINE)
        second = file.readline(LONGEST_LINE)
    return _parse(path, first, second)


def read_state(folder: Path) -> tuple[Progress, io.BytesIO] | None:
    """What the folder's train state says of itself, and the rest of it, None without one.

    The rest of a state from before these lines is empty. Raises what `read_progress` raises, and if a byte has changed.
    """
    path = folder / STATE
    if not path.exists():
        return None
    content = memoryview(path.read_bytes())
    first, below = bytes(content[:FIRST_LINE]), content[FIRST_LINE:]
    second = io.BytesIO(below[:LONGEST_LINE]).readline()
    found = _parse(path, first, second)
    if not found.made_by:
        return found, io.BytesIO()
    if first[len(MAGIC) : -1] != hashlib.sha256(below).hexdigest().encode():
        raise damaged(path, "its checksum is wrong")
    return found, io.BytesIO(below[len(second) :])


def _parse(path: Path, first: bytes, second: bytes) -> Progress:
    if first.startswith(OLDER):
        return Progress(spec=path.parent.name, step=0, made_by={})
    if not first.startswith(MAGIC) or not second.endswith(b"\n"):
        raise damaged(path, "it has no checksum")
    try:
        found = parse_as(Progress, json.loads(second))
    except ValueError as error:
        raise damaged(path, str(error)) from None
    if found.spec != path.parent.name:
        raise UserError(f"{path}: the train state of another run ({found.spec}); delete it to start this run anew")
    return found


def damaged(path: Path, why: str) -> UserError:
    """The sentence for a state that cannot be gone on from."""
    return UserError(f"{path} is not a readable train state ({why}); delete it to start this run anew")
