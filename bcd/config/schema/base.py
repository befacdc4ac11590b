"""What the types of params share: strictness, tasks and their metrics, names, and ranges of pixels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
)

TaskName = Literal["semantic", "detection", "instance"]
BOX_METRICS = ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")
METRICS = {
    "semantic": ("miou", "macc", "aacc", "biou", "trimap1", "trimap3", "trimap5", "bf3", "conn", "frag"),
    "detection": BOX_METRICS,
    "instance": (*BOX_METRICS, *(f"{m}_mask" for m in BOX_METRICS), *(f"{m}_boundary" for m in BOX_METRICS)),
}

# Names become folders, run keys and words of a shell command.
NAME = re.compile(r"(?!.*\.\.)[^\W_][\w.+-]*")


LONGEST_NAME = 200  # a file system takes 255, and the names of files have more parts


def require_name(name: object) -> str:
    """`name`, if it may name a suite, table, method, model, recipe or dataset; ValueError otherwise."""
    if isinstance(name, str) and len(name.encode(errors="replace")) > LONGEST_NAME:
        raise ValueError(f"{name[:20]!r}... is too long for a name: files take {LONGEST_NAME} bytes of it at most")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a name: it becomes a folder and a word of commands; start with a letter or digit "
            "and go on with letters, digits and - _ . +"
        )
    return name


def repeated(values: Iterable[str]) -> str | None:
    """The first value that stands twice, or None."""
    seen: set[str] = set()
    return next((value for value in values if value in seen or seen.add(value)), None)  # type: ignore[func-returns-value]


def require_inside(path: str) -> str:
    """`path`, if it stays inside the folder that it is relative to; ValueError otherwise."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or not path.isprintable():
        raise ValueError(f"{path!r} leaves its folder; write a path below it, without ..")
    return path


Name = Annotated[str, AfterValidator(require_name)]
Inside = Annotated[str, AfterValidator(require_inside)]
Side = Annotated[int, Field(ge=1, le=2**14)]  # a longer one fits into no memory
Pixels = Annotated[list[Side], Len(2, 2)]
Range = Annotated[list[Annotated[float, Field(gt=0, le=100)]], Len(2, 2)]
Images = Annotated[int, Field(ge=1, le=2**16)]
Channels3 = Annotated[list[NonNegativeFloat], Len(3, 3)]


class Strict(BaseModel):
    """Immutable, no unknown keys, no conversions: a number in quotes is an error. Floats are finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
