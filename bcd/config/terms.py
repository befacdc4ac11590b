"""The terms of `bcd/losses/` as far as `params/` needs them: names, files and the types of their options.

Everything is read from the source. Importing the losses would import torch, which takes seconds, and every command and
every DAG build needs the options.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field, create_model

from bcd.config import ranges
from bcd.config.check import check
from bcd.config.schema.base import Strict
from bcd.errors import UserError, nearest

LOSSES = Path(__file__).parents[1] / "losses"
# All that the annotation of an option may name.
NAMES: dict[str, object] = {
    "__builtins__": {},
    **{each.__name__: each for each in (int, float, bool, str, list, tuple)},
    **{name: value for name, value in vars(ranges).items() if name[0].isupper()},
    "Literal": Literal,
    "Annotated": Annotated,
    "Field": Field,
}


class _Source(NamedTuple):
    """Where a loss is defined, and the arguments of the function, or of `__init__` of the class."""

    path: Path
    arguments: ast.arguments


def term_names() -> tuple[str, ...]:
    """The keys of `bcd.losses.TERMS`, in its order."""
    return tuple(_sources())


def term_sources() -> dict[str, Path]:
    """Term -> the module that defines its loss."""
    return {term: source.path for term, source in _sources().items()}


@cache
def term_options(term: str) -> type[BaseModel]:
    """The options of a term with their types and defaults: what its loss takes by keyword, but for FACTS.

    Raises:
        UserError: there is no such term.
        AssertionError: a mistake in the loss: an option without a type, or with one that is not among NAMES.
    """
    fields: dict[str, Any] = dict(_fields(term, _source(term, "term")))
    return create_model(term, __base__=Strict, **fields)


def option_names(term: str) -> tuple[str, ...]:
    """The names of a term's options, in the order of its signature; UserError if there is no such term."""
    return tuple(term_options(term).model_fields)


def check_options(term: str, options: Mapping[str, Any], where: str, *, beside: Iterable[str] = ()) -> dict[str, Any]:
    """The options as they were given, if they fit the term; nothing is converted and no default is filled in.

    Args:
        term: a key of `bcd.losses.TERMS`.
        options: name -> value.
        where: what an error starts with, such as `params/methods.yaml: pbd: terms[0]`.
        beside: names that may stand beside the options in the same mapping, for the spelling of an unknown one.

    Raises:
        UserError: there is no such term, or an option is unknown, missing, or has a value that is not allowed.
    """
    _source(term, f"{where}.term")
    names = option_names(term)
    for unknown in (name for name in options if name not in names):
        known = [*names, *beside]
        hint = nearest(unknown, known) if known else f"; '{term}' has no options"
        raise UserError(f"{where}.{unknown}: unknown key{hint}")
    try:
        check(term_options(term), dict(options), where)
    except UserError as error:  # options stand in the same mapping as the fields of a term
        raise UserError(str(error).replace(f"{where}: ", f"{where}.", 1)) from None
    return dict(options)


def _source(term: str, where: str) -> _Source:
    sources = _sources()
    if not isinstance(term, str) or term not in sources:  # YAML may give anything
        raise UserError(f"{where}: '{term}' is not a term{nearest(term, sources)}")
    return sources[term]


@cache
def _registry() -> list[ast.stmt]:
    return ast.parse((LOSSES / "__init__.py").read_text(encoding="utf-8")).body


@cache
def _sources() -> dict[str, _Source]:
    """Term -> its loss, found by the name that TERMS gives it and the import of that name."""
    registry = _registry()
    modules = {
        alias.asname or alias.name: (LOSSES / f"{node.module.rpartition('.')[2]}.py", alias.name)
        for node in registry
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    return {term: _Source(modules[loss][0], _arguments(*modules[loss])) for term, loss in _registered(registry)}


@cache
def _facts() -> tuple[str, ...]:
    """FACTS of bcd/losses/__init__.py."""
    for node in _registry():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FACTS":
            return tuple(ast.literal_eval(node.value))
    raise AssertionError("bcd/losses/__init__.py has no FACTS")


def _registered(registry: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """The keys of TERMS with the names of their losses: `"kd": Term(kd, ...)` gives kd, kd."""
    for node in registry:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "TERMS" and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                assert isinstance(key, ast.Constant) and isinstance(value, ast.Call), "TERMS is read from its source"
                yield str(key.value), ast.unparse(value.args[0])


def _arguments(path: Path, loss: str) -> ast.arguments:
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    for node in nodes:
        if isinstance(node, ast.ClassDef) and node.name == loss:
            nodes, loss = node.body, "__init__"
    return next(node.args for node in nodes if isinstance(node, ast.FunctionDef) and node.name == loss)


def _fields(term: str, source: _Source) -> Iterator[tuple[str, tuple[object, object]]]:
    """Name, type and default of each option, as pydantic takes them; `...` for an option without a default."""
    for argument, default in zip(source.arguments.kwonlyargs, source.arguments.kw_defaults, strict=True):
        if argument.arg in _facts():
            continue
        mistake = f"{source.path}: the option '{argument.arg}' of the term '{term}'"
        if argument.annotation is None:
            raise AssertionError(f"{mistake} has no type")
        try:
            kind = eval(ast.unparse(argument.annotation), dict(NAMES))  # our own source
            assert not isinstance(kind, str), "write the type without quotes, not as text"
            value = ... if default is None else ast.literal_eval(default)
        except Exception as error:
            raise AssertionError(f"{mistake}: its type or default cannot be read without torch: {error}") from None
        yield argument.arg, (kind, value)
