"""What a source file says, without its comments, docstrings and layout, and what it imports of ours."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, NamedTuple

from bcd.errors import UserError
from bcd.files import atomic_write

MOST_KNOWN = 1000  # sources to remember; the package has some 150, and each edit is another


class Import(NamedTuple):
    """`from module import name as bound`; no name for `import module as bound`."""

    module: str
    name: str
    bound: str


class Part(NamedTuple):
    """A module, or the entry of a term: the hash of its normal form ("" for nothing) and its imports of ours."""

    form: str
    imports: tuple[Import, ...]


class Known:
    """The parts of sources, remembered between processes beside Python's own compiled files.

    A source is known by the hash of its text and of this module. So a file that is edited, and one that another
    version wrote, is parsed again. A memory that is damaged or cannot be written is none.
    """

    def __init__(self, package: Path):
        self._file = Path(cache_from_source(str(package / "source.py"))).with_name("source-parts.json")
        self._before: dict[str, dict[str, Part]] = {}
        self._asked: dict[str, dict[str, Part]] = {}
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            kept = json.loads(self._file.read_bytes())
            if _digest(kept["parts"]) == kept["sha256"]:
                self._before = {key: _parts(content) for key, content in kept["parts"].items()}

    def parse(self, source: str, inside: str, table: str = "") -> dict[str, Part]:
        """What `parse` gives."""
        key = _digest([_this(), inside, table, source])
        if key not in self._asked:
            self._asked[key] = self._before.get(key) or parse(source, inside, table)
        return self._asked[key]

    def keep(self) -> None:
        """Remember what was asked for."""
        if self._asked.keys() <= self._before.keys():
            return
        known = self._asked | self._before
        self._before = known if len(known) <= MOST_KNOWN else dict(self._asked)
        with suppress(OSError, UserError):
            self._file.parent.mkdir(exist_ok=True)
            atomic_write(self._file, json.dumps({"sha256": _digest(self._before), "parts": self._before}))


def _parts(content: Mapping[str, Any]) -> dict[str, Part]:
    return {name: Part(form, tuple(Import(*line) for line in lines)) for name, (form, lines) in content.items()}


@cache
def _this() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def parse(source: str, inside: str, table: str = "") -> dict[str, Part]:
    """The parts of a module: itself under "", and under their keys the entries of the dict that it assigns to `table`.

    `inside` is the package that its relative imports start from. The module is without those entries. Each entry has
    the imports of the names in it. Raises RuntimeError where a table is asked for and there is none.
    """
    body = ast.parse(source).body
    return _registry(body, inside, table) if table else {"": _part(body, inside)}


def _registry(body: list[ast.stmt], inside: str, name: str) -> dict[str, Part]:
    table = next((table for statement in body if (table := _table(statement, name))), None)
    if table is None:
        raise RuntimeError(f"{inside} assigns no dict to {name}")
    values = _take(table)
    rest = _part(body, inside)
    names = {term: _names([value]) for term, value in values.items()}
    entries = {
        term: Part(_part([value], inside).form, tuple(line for line in rest.imports if line.bound in names[term]))
        for term, value in values.items()
    }
    chosen = set().union(*names.values()) - _names(body)
    return {"": Part(rest.form, tuple(line for line in rest.imports if line.bound not in chosen))} | entries


def _take(table: ast.Dict) -> dict[str, ast.expr]:
    """The entries of a dict, which loses them; what `**` brings in stays and counts for all."""
    pairs = list(zip(table.keys, table.values, strict=True))
    table.values = [value for key, value in pairs if key is None]
    table.keys = [None] * len(table.values)
    return {ast.literal_eval(key): value for key, value in pairs if key is not None}


def _table(statement: ast.stmt, name: str) -> ast.Dict | None:
    """The dict that a statement assigns to this name."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if not any(isinstance(target, ast.Name) and target.id == name for target in targets):
        return None
    return next((node for node in ast.walk(statement) if isinstance(node, ast.Dict)), None)


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.id for root in nodes for node in ast.walk(root) if isinstance(node, ast.Name)}


def _part(nodes: Sequence[ast.AST], inside: str) -> Part:
    writer = _Writer(inside)
    writer.write(list(nodes))
    text = "".join(writer.pieces)
    return Part(hashlib.sha256(text.encode()).hexdigest() if text != "[]" else "", tuple(writer.imports))


class _Writer:
    """Writes a syntax tree as text that is the same in every Python, and sets the imports of our modules apart.

    Comments and layout are not in a tree. Docstrings are left out, and what only a type checker imports.
    """

    def __init__(self, inside: str):
        self.pieces: list[str] = []
        self.imports: list[Import] = []
        self._inside = inside

    def write(self, node: Any) -> None:
        put = self.pieces.append
        if isinstance(node, list):
            put("[")
            for item in self._lasting(node) if node and isinstance(node[0], ast.stmt) else node:
                self.write(item)
            put("]")
        elif isinstance(node, ast.Name):
            put(f"Name({node.id})")
        elif isinstance(node, ast.Constant):
            put(f"Constant({node.value!a})")
        elif isinstance(node, ast.JoinedStr):
            self._fields("JoinedStr", [("values", _joined(node.values))])
        elif isinstance(node, ast.AST):
            kind: Any = type(node)
            self._fields(kind.__name__, [(name, getattr(node, name)) for name in _field_names(kind)])
        else:
            put(ascii(node))

    def _fields(self, kind: str, fields: Iterable[tuple[str, Any]]) -> None:
        """Fields without a value are left out: which of them a node has differs between Pythons."""
        put = self.pieces.append
        put(f"{kind}(")
        for name, value in fields:
            if value is not None and value != []:
                put(f"{name}=")
                self.write(value)
        put(")")

    def _lasting(self, statements: list[ast.stmt]) -> Iterator[ast.stmt]:
        """The statements that do something, without the imports of our modules, which are noted."""
        for statement in statements:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue
            if isinstance(statement, ast.If) and _for_type_checkers(statement.test):
                yield from self._lasting(statement.orelse)
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                yield from self._import(statement)
            else:
                yield statement

    def _import(self, statement: ast.Import | ast.ImportFrom) -> Iterator[ast.stmt]:
        """The statement again if it imports what is not ours; one with both is counted whole."""
        lines = [self._own(statement, alias) for alias in statement.names]
        self.imports += [line for line in lines if line]
        if not all(lines):
            yield statement

    def _own(self, statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> Import | None:
        """What a name is imported from, if that is ours."""
        if isinstance(statement, ast.Import):
            line = Import(alias.name, "", alias.asname or "")
        else:
            above = self._inside.split(".")[: self._inside.count(".") + 2 - statement.level] if statement.level else []
            module = ".".join([*above, *([statement.module] if statement.module else [])])
            line = Import(module, alias.name, alias.asname or alias.name)
        return line if line.module.split(".")[0] == "bcd" else None


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(name for name in kind._fields if name not in ("ctx", "kind", "type_comment"))


def _joined(values: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string; Pythons differ in whether literals side by side are one, and in empty ones."""
    parts: list[ast.expr] = []
    for value in values:
        before = parts[-1] if parts else None
        if isinstance(value, ast.Constant) and isinstance(before, ast.Constant):
            parts[-1] = ast.Constant(f"{before.value!s}{value.value!s}")
        elif not (isinstance(value, ast.Constant) and value.value == ""):
            parts.append(value)
    return parts


def _for_type_checkers(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"
