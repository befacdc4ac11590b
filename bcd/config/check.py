"""Values of `params/` against their types: the first thing that is wrong, as one sentence."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from bcd.errors import UserError, nearest


def check(model: type[BaseModel], values: Any, where: str):
    """`values` as `model`; the first violation becomes one sentence that starts with `where` and the field."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(model, error.errors()[0], where)) from None


def _sentence(model: type[BaseModel], error: dict, where: str) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    where = f"{where}: {field}" if field else where
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key{nearest(error['loc'][-1], _fields_at(model, error['loc'][:-1]))}"
    if kind == "missing":
        return f"{where}: this key is required and missing"
    if kind == "value_error":
        return f"{where}: {error['ctx']['error']}"
    if kind == "literal_error":
        known = [word.strip("' ") for word in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"{where}: '{given}' is not allowed{nearest(given, known)}"
    hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if kind == "float_type" and isinstance(given, str) else ""
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, but got {given!r}{hint}"


def _fields_at(model: type[BaseModel], path: tuple) -> list[str]:
    """The field names of the (possibly nested) model in which an unknown key was found."""
    for part in path:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = [m for m in _models_in(model.model_fields[part].annotation)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _models_in(annotation) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]
