"""YAML files and values, read strictly: no key twice, and numbers are what they look like.

PyYAML follows YAML 1.1, where `010` is 8, `1:30` is 90, `no` is false and `5e-05` is text. Here, as in YAML 1.2, the
last is a number and the others are text. So a person, this program and DVC read the same.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from bcd.errors import UserError
from bcd.files import read_text

MOST_VALUES = 10**5  # of a params file with its aliases written out; ours have a few thousand
MOST_LEVELS = 100  # of lists and mappings in one another; ours have eight


# The parser in C is some fifteen times as fast, and every command reads all of params.
class _Strict(yaml.CSafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):  # fmt: skip
    _Strict.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def _unique_mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Hashable, Any]:
    """YAML lets a second key silently replace the first; a params file must not."""
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{loader.name}: line {line}: a key must be a word, not a list or a mapping")
        if key_node.value in seen:
            raise UserError(f"{loader.name}: line {line}: the key '{key_node.value}' stands twice; remove one")
        seen.add(key_node.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _float(loader: _Strict, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _int(loader: _Strict, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_Strict.add_constructor("tag:yaml.org,2002:map", _unique_mapping)
_Strict.add_constructor("tag:yaml.org,2002:float", _float)
_Strict.add_constructor("tag:yaml.org,2002:int", _int)


def _written_out(node: yaml.Node, sizes: dict[yaml.Node, int], where: str) -> int:
    """How many values a node has with its aliases written out, each of which may hold others many times."""
    if sizes.get(node) == 0:  # it is being counted
        raise UserError(f"{where}: line {node.start_mark.line + 1}: an alias holds itself; write the values out")
    if node not in sizes:
        sizes[node] = 0
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        sizes[node] = 1 + sum(_written_out(part, sizes, where) for part in inner)
    return sizes[node]


def _check_levels(text: str, where: str) -> None:
    """The loader calls itself for each level, in C, where no RecursionError ends it; reading the events does not."""
    level = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise UserError(f"{where}: nested too deeply; write it with fewer brackets")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises UserError naming the file for anything else."""
    content = parse(read_text(path, "run the command in the project's folder"), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of names to settings")
    if wrong := next((key for key in content if not isinstance(key, str)), None):
        raise UserError(f"{path}: the key {wrong!r} is not a word; put it in quotes")
    return content


def parse(text: str, where: str) -> Any:
    """The value of YAML text; raises UserError that starts with `where` if it is none."""
    try:
        _check_levels(text, where)
        loader = _Strict(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    loader.name = where
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}, where) > MOST_VALUES:
            raise UserError(f"{where}: its aliases write out to more than {MOST_VALUES} values; use fewer of them")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # by a tag that its value does not fit
        raise UserError(f"{where}: not valid YAML: {error}") from None
    finally:
        loader.dispose()
