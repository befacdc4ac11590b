"""The terms of `bcd/losses/` as far as `params/` needs them: names, files and options, read without importing torch."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from bcd.config.schema import FACTS


@cache
def term_sources() -> dict[str, tuple[Path, ast.AST]]:
    """Term name -> file and syntax tree of its loss, read from the source of `bcd/losses/`.

    Parsed rather than imported: the losses import torch (seconds), and every DAG build needs their options.
    """
    folder = Path(__file__).parents[1] / "losses"
    defined: dict[str, tuple[Path, ast.AST]] = {}
    for path in sorted(folder.glob("*.py")):
        nodes = [n for n in ast.parse(path.read_text()).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        defined |= {node.name: (path, node) for node in nodes}
    for node in ast.parse((folder / "__init__.py").read_text()).body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if isinstance(target, ast.Name) and target.id == "TERMS":
            return {k.value: defined[v.args[0].id] for k, v in zip(node.value.keys, node.value.values, strict=True)}
    raise RuntimeError(f"{folder / '__init__.py'} has no TERMS")


@cache
def term_options() -> dict[str, set[str]]:
    """Term name -> names of the options its loss takes: its keyword-only arguments that are not FACTS."""
    options = {}
    for name, (_, node) in term_sources().items():
        if isinstance(node, ast.ClassDef):
            node = next(f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__")
        options[name] = {a.arg for a in node.args.kwonlyargs} - set(FACTS)
    return options
