"""Changing values by path, for suites and for `--set`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from bcd.errors import UserError, nearest


def override(values: dict, settings: dict[str, Any], where: str) -> dict:
    """A deep copy of `values` with `a.b.0.c`-style paths replaced; the path must exist, so a typo is an error.

    The last key alone may be new where the caller validates the result afterwards (an option left at its default), and
    so may an index one past the end, which appends.
    """
    result = deepcopy(values)
    for path, value in settings.items():
        *parents, last = path.split(".")
        node: Any = result
        for part in parents:
            if isinstance(node, list):
                if not part.isdigit() or int(part) >= len(node):
                    raise UserError(f"{where}: {path}: '{part}' must be an index below {len(node)}")
                node = node[int(part)]
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                raise UserError(
                    f"{where}: {path}: '{part}' does not exist{nearest(part, node if isinstance(node, dict) else [])}"
                )
        if isinstance(node, list):
            if not last.isdigit() or int(last) > len(node):
                raise UserError(f"{where}: {path}: '{last}' must be an index, at most {len(node)}, which appends")
            node[int(last) : int(last) + 1] = [value]
        else:
            node[last] = value
    return result
