"""Changing values by path, for suites and for `--set`. A path must exist, so a typo is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from bcd.config.schema.methods import WeightedTerm
from bcd.errors import UserError, nearest


def override(values: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A deep copy of `values` with `a.b.c`-style paths replaced.

    The last key alone may be new: the caller validates the result, and an option may have been left at its default.
    """
    result = deepcopy(dict(values))
    for path, value in settings.items():
        *parents, last = path.split(".")
        node: Any = result
        for part in parents:
            if not isinstance(node, dict) or part not in node:
                known = node if isinstance(node, dict) else []
                raise UserError(f"{where}: {path}: '{part}' does not exist{nearest(part, known)}")
            node = node[part]
        if not isinstance(node, dict):
            raise UserError(f"{where}: {path}: there is nothing below '{parents[-1]}', which is {node!r}")
        node[last] = value
    return result


def term_keys(terms: Sequence[str]) -> list[str]:
    """What each term of a method is called: `<term>`, or `<term>/<i>` where a term occurs more than once."""
    return [name if terms.count(name) == 1 else f"{name}/{terms[:i].count(name)}" for i, name in enumerate(terms)]


def changed_terms(
    terms: Sequence[WeightedTerm], settings: Mapping[str, Any], added: Sequence[Mapping[str, Any]], where: str
) -> list[dict[str, Any]]:
    """The terms as in YAML, with `<term>.<field>` paths replaced and others added at the end; not validated."""
    keys = term_keys([term.term for term in terms])
    flat = {key: flat_term(term) for key, term in zip(keys, terms, strict=True)}
    for path, value in settings.items():
        key, _, field = path.partition(".")
        if key not in flat:
            twins = [known for known in keys if known.startswith(f"{key}/")]
            hint = f"; the method has {' and '.join(twins)}" if twins else nearest(key, keys)
            raise UserError(f"{where}: {path}: no term of the method is called '{key}'{hint}")
        if not field or "." in field:
            raise UserError(f"{where}: {path}: write <term>.<field>, such as {keys[0]}.weight")
        flat[key][field] = value
    return [*flat.values(), *map(dict, added)]


def flat_term(term: WeightedTerm) -> dict[str, Any]:
    """A term as it stands in params/methods.yaml: its options beside its other keys."""
    return term.model_dump(exclude={"options"}) | deepcopy(term.options)
