"""JSON files of ours: how they are written, and how they are read as a type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bcd.errors import UserError
from bcd.files import read_bytes

Content = TypeVar("Content", bound=BaseModel)


class Json(BaseModel):
    """A JSON file of ours. Keys that are not listed are kept by nobody: files may be younger than this code."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def dump(value: Any) -> str:
    """JSON as we write it everywhere: sorted, indented, newline at the end."""
    content = value.model_dump() if isinstance(value, BaseModel) else value
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_json(path: Path, remedy: str = "delete it and run `snakemake` again") -> Any:
    """The content of a JSON file of ours; raises UserError with the remedy if it is missing or damaged."""
    data = read_bytes(path, "run `snakemake` to make it")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from None


def read_as(kind: type[Content], path: Path, remedy: str = "delete it and run `snakemake` again") -> Content:
    """A JSON file of ours as its type; raises UserError for other content, too."""
    content = read_json(path, remedy)
    try:
        return parse_as(kind, content)
    except ValueError as error:
        raise UserError(f"{path} is not a {kind.__name__} of this program ({error}); {remedy}") from None


def parse_as(kind: type[Content], content: Any) -> Content:
    """JSON values as a type of ours; raises ValueError saying in a few words where they differ from it."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its content"
        raise ValueError(f"{where}: {first['msg']}") from None
