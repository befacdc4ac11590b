"""Values of `params/` against their types: the first thing that is wrong, as one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bcd.errors import UserError, nearest

Type = TypeVar("Type", bound=BaseModel)
SHOWN = 80  # letters of a wrong value


def check(model: type[Type], values: Any, where: str) -> Type:
    """`values` as `model`; the first violation becomes a `UserError` that starts with `where` and the field."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # Where a word or a mapping may stand, a mapping is wrong as a mapping and not for being no word.
        wrong = [one for one in error.errors() if not (one["type"] == "string_type" and isinstance(one["input"], dict))]
        raise UserError(_sentence(model, _telling(wrong or error.errors()), where)) from None
    except RecursionError:
        raise UserError(f"{where}: an alias holds itself; write the values out") from None


def _telling(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """The first of them; or, where that is a missing key, one beside it that nobody knows and that may be meant."""
    first = errors[0]
    beside = [one for one in errors if one["type"] == "extra_forbidden" and one["loc"][:-1] == first["loc"][:-1]]
    return beside[0] if beside and first["type"] == "missing" else first


def _sentence(model: type[BaseModel], error: ErrorDetails, where: str) -> str:
    field, owner = _located(model, error["loc"])
    where = f"{where}: {field}" if field else where
    kind, given = error["type"], _short(error["input"])
    if kind == "extra_forbidden":
        return f"{where}: unknown key{_other_place(owner, str(error['loc'][-1]))}"
    if kind == "missing":
        return f"{where}: this key is required and missing"
    if kind == "value_error":
        return f"{where}: {error['ctx']['error']}"
    if kind == "literal_error":
        return f"{where}: {given} is not allowed{nearest(error['input'], _words(error['ctx']['expected']))}"
    if kind == "union_tag_invalid":
        tag, known = error["ctx"]["tag"], _words(error["ctx"]["expected_tags"])
        return f"{where}.name: '{tag}' is not known{nearest(tag, known)}"
    if kind in ("too_long", "too_short"):
        most, least = error["ctx"].get("max_length"), error["ctx"].get("min_length")
        bound = f"at most {most} are allowed" if most is not None else f"at least {least} are needed"
        return f"{where}: {error['ctx']['actual_length']} entries, but {bound}"
    if kind in ("union_tag_not_found", "model_attributes_type", "model_type", "dict_type"):
        return f"{where}: expected a mapping of names to values, but got {given}"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, but got {given}"


def _short(value: object) -> str:
    """A value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _words(listed: str) -> list[str]:
    return [word.strip("' ") for word in listed.replace(" or ", ", ").split(",")]


def _located(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[str, type[BaseModel]]:
    """A place in `model` as text, without pydantic's names for members of unions; and the model that it lies in."""
    text, owner = "", model
    inner: list[type[BaseModel]] = []
    for i, part in enumerate(loc):
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        if part == "[key]":
            continue
        member = next((m for m in inner if part in (m.__name__, *_tags(m))), None)
        if inner:
            owner = member or inner[0]
        if member is None and not (part in ("str", "list[str]") and i):
            text += f".{part}"
        inner = (
            []
            if member
            else list(_models_in(owner.model_fields[part].annotation))
            if part in owner.model_fields
            else []
        )
    return text.lstrip("."), owner


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """What a discriminator of a union calls the model."""
    field = model.model_fields.get("name")
    return tuple(map(str, get_args(field.annotation))) if field else ()


def _other_place(owner: type[BaseModel], key: str) -> str:
    """Where an unknown key may belong: into a nested mapping that has it, or to a key of like spelling."""
    for name, field in owner.model_fields.items():
        if any(key in nested.model_fields for nested in _models_in(field.annotation)):
            return f"; did you mean '{name}.{key}'?"
    return nearest(key, owner.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
