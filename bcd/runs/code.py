"""Which code a run's weights and its metrics are made by, as two hashes.

The code is the import closure of the entry points below, read from the source; nothing is imported, so planning needs
no torch. A hash is over what the modules say and not over where they lie: a file that moves leaves it as it was.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parents[1]

LOOP, EVALUATION, FORMATS = "bcd.train.loop", "bcd.train.evaluation", "bcd.data.formats"
# The module of a task. `MAKER` imports each of them to make one; a run depends on its own.
MAKER = "bcd.tasks"
TASKS = {
    "semantic": "bcd.tasks.semantic",
    "detection": "bcd.tasks.detection",
    "instance": "bcd.tasks.detection",
}
# The module with the dict of all terms, and the dict. A run depends on the entries of its own terms.
REGISTRY, TERMS = "bcd.losses", "TERMS"

# Modules, with all below them, that make no run stale, and why.
BOUNDARY = {
    "bcd.__init__": "holds the version of the package",
    "bcd.cli": "says which runs to make, not how",
    "bcd.config": "reads params into values, and the values are in the spec of a run",
    "bcd.data.formats.__init__": "names the formats; a run starts from its own",
    "bcd.data.acquire": "gets the data, whose bytes the manifest in the spec has the hashes of",
    "bcd.errors": "words messages; a finished run has raised none that its result depends on",
    "bcd.files": "writes and hashes bytes that others made",
    "bcd.planning": "estimates what runs cost",
    "bcd.report": "shows results that are there",
    "bcd.runs": "finds, keeps and judges runs",
    "bcd.tracking": "copies results that are there",
}
EVALUATION_ONLY = {"bcd.metrics": "measures a model; no loss and no batch is made with it"}
TRAINING_ONLY = {
    "bcd.distill": "compares student and teacher; an evaluation has one model with finished weights",
    "bcd.losses": "gives the gradients of training",
}


class CodeHashes(NamedTuple):
    """Hashes of the code that a run's weights, and that its metrics, are made by; 16 hex digits each."""

    train: str
    evaluate: str


def fingerprints(task: str, data_format: str, terms: Collection[str], package: Path = PACKAGE) -> CodeHashes:
    """The hashes of today's code for a run; `package` is the folder `bcd`.

    Files are read once in a process. Raises ModuleNotFoundError for an entry point or an import that has no file, and
    KeyError for a term that is not in the registry.
    """
    return _package(package).fingerprints(task, data_format, frozenset(terms))


def modules(task: str, data_format: str, terms: Collection[str], package: Path = PACKAGE) -> tuple[set[str], set[str]]:
    """Names of the modules that the two hashes are made of; the entry of a term is `bcd.losses[term]`."""
    found = _package(package)
    train, evaluate = _questions(task, data_format, terms)
    return set(found.closure(train)), set(found.closure(evaluate))


def forget() -> None:
    """Drop what was read from files; for tests, which change them."""
    _package.cache_clear()


@cache
def _package(folder: Path) -> _Package:
    return _Package(folder)


class _Question(NamedTuple):
    """What a hash is asked of: the modules to start from and those to stop at."""

    starts: tuple[str, ...]
    stops: frozenset[str]


def _questions(task: str, data_format: str, terms: Collection[str]) -> tuple[_Question, _Question]:
    shared = (TASKS[task], f"{FORMATS}.{data_format}")
    entries = tuple(f"{REGISTRY}[{term}]" for term in sorted(terms))
    return (
        _Question((LOOP, *shared, *entries), frozenset({*BOUNDARY, *EVALUATION_ONLY})),
        _Question((EVALUATION, *shared), frozenset({*BOUNDARY, *TRAINING_ONLY})),
    )


class _Package:
    """The modules of a package, read when they are asked for."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._parts: dict[str, _Part] = {}
        self._files: dict[str, Path | None] = {}
        self._hashes: dict[_Question, str] = {}

    def fingerprints(self, task: str, data_format: str, terms: frozenset[str]) -> CodeHashes:
        return CodeHashes(*map(self._hash, _questions(task, data_format, terms)))

    def closure(self, question: _Question) -> dict[str, _Part]:
        """The modules that are imported from the starts on, directly or not, without those beyond the stops."""
        found: dict[str, _Part] = {}
        waiting = list(question.starts)
        while waiting:
            name = waiting.pop()
            if name not in found and not _beyond(name, question.stops):
                found[name] = self._part(name)
                waiting += self._next(name)
        return found

    def _hash(self, question: _Question) -> str:
        if question not in self._hashes:
            lines = "\n".join(sorted(set(self._lines(self.closure(question)))))
            self._hashes[question] = hashlib.sha256(lines.encode()).hexdigest()[:16]
        return self._hashes[question]

    def _lines(self, parts: Mapping[str, _Part]) -> Iterator[str]:
        """The content of every module, and of every import whose content it is; no path."""
        for part in parts.values():
            if part.form:
                yield part.form
            for line in part.imports:
                if (source := parts.get(self._source(line))) is not None:
                    name = "" if self._is_module(line) else line.name
                    yield f"{part.form} {source.form} {name} {line.bound}"

    def _next(self, name: str) -> list[str]:
        """The modules that Python loads for this one: its packages and what it imports."""
        parent = _parent(name)
        imported = [self._source(line) for line in self._part(name).imports]
        if name == MAKER:  # A run names its own task as a start.
            imported = [source for source in imported if source not in TASKS.values()]
        return imported + ([parent] if parent and self._file(parent) else [])

    def _source(self, line: _Import) -> str:
        """The module that an import has its name from, or the module that it names."""
        return f"{line.module}.{line.name}" if self._is_module(line) else line.module

    def _is_module(self, line: _Import) -> bool:
        return bool(line.name) and self._file(f"{line.module}.{line.name}") is not None

    def _part(self, name: str) -> _Part:
        if name not in self._parts:
            module, _, term = name.removesuffix("]").partition("[")
            file = self._file(module)
            if file is None:
                raise ModuleNotFoundError(f"no module {module} in {self._folder}", name=module)
            source, inside = file.read_text(encoding="utf-8"), module if file.stem == "__init__" else _parent(module)
            if module == REGISTRY:
                rest, entries = _parse_registry(source, inside)
                self._parts[name] = entries[term] if term else rest
            else:
                self._parts[name] = _parse(source, inside)
        return self._parts[name]

    def _file(self, name: str) -> Path | None:
        """The file of a module or of a package."""
        if name not in self._files:
            path = self._folder.joinpath(*name.split(".")[1:])
            candidates = (path / "__init__.py", path.with_suffix(".py"))
            self._files[name] = next((file for file in candidates if file.is_file()), None)
        return self._files[name]


def _parent(name: str) -> str:
    """The package of a module; of the entry of a term, its registry."""
    return name.partition("[")[0] if "[" in name else name.rpartition(".")[0]


def _beyond(name: str, stops: frozenset[str]) -> bool:
    if f"{name}.__init__" in stops:
        return True
    return any(name == stop or name.startswith((f"{stop}.", f"{stop}[")) for stop in stops)


@dataclass(frozen=True)
class _Import:
    """`from module import name as bound`; no name for `import module as bound`."""

    module: str
    name: str
    bound: str


@dataclass(frozen=True)
class _Part:
    """A module, or the entry of a term: the hash of its normal form ("" for nothing) and its imports of ours."""

    form: str
    imports: tuple[_Import, ...]


@cache
def _parse(source: str, inside: str) -> _Part:
    """A module; `inside` is the package that its relative imports start from."""
    return _part(ast.parse(source).body, inside)


@cache
def _parse_registry(source: str, inside: str) -> tuple[_Part, Mapping[str, _Part]]:
    """A module without the entries of `TERMS`, and the entries: each with the imports of the names in it."""
    body = ast.parse(source).body
    table = next((table for statement in body if (table := _table(statement))), None)
    if table is None:
        raise RuntimeError(f"{inside} assigns no dict to {TERMS}")
    values = _take(table)
    rest = _part(body, inside)
    names = {term: _names([value]) for term, value in values.items()}
    entries = {
        term: _Part(_part([value], inside).form, tuple(line for line in rest.imports if line.bound in names[term]))
        for term, value in values.items()
    }
    chosen = set().union(*names.values()) - _names(body)
    return _Part(rest.form, tuple(line for line in rest.imports if line.bound not in chosen)), entries


def _take(table: ast.Dict) -> dict[str, ast.expr]:
    """The entries of a dict, which loses them; what `**` brings in stays and counts for all."""
    pairs = list(zip(table.keys, table.values, strict=True))
    table.values = [value for key, value in pairs if key is None]
    table.keys = [None] * len(table.values)
    return {ast.literal_eval(key): value for key, value in pairs if key is not None}


def _table(statement: ast.stmt) -> ast.Dict | None:
    """The dict that a statement assigns to `TERMS`."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if not any(isinstance(target, ast.Name) and target.id == TERMS for target in targets):
        return None
    return next((node for node in ast.walk(statement) if isinstance(node, ast.Dict)), None)


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.id for root in nodes for node in ast.walk(root) if isinstance(node, ast.Name)}


def _part(nodes: Sequence[ast.AST], inside: str) -> _Part:
    writer = _Writer(inside)
    writer.write(list(nodes))
    text = "".join(writer.pieces)
    return _Part(hashlib.sha256(text.encode()).hexdigest() if text != "[]" else "", tuple(writer.imports))


class _Writer:
    """Writes a syntax tree as text that is the same in every Python, and sets the imports of our modules apart.

    Comments and layout are not in a tree. Docstrings are left out, and what only a type checker imports.
    """

    def __init__(self, inside: str):
        self.pieces: list[str] = []
        self.imports: list[_Import] = []
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

    def _own(self, statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> _Import | None:
        """What a name is imported from, if that is ours."""
        if isinstance(statement, ast.Import):
            line = _Import(alias.name, "", alias.asname or "")
        else:
            above = self._inside.split(".")[: self._inside.count(".") + 2 - statement.level] if statement.level else []
            module = ".".join([*above, *([statement.module] if statement.module else [])])
            line = _Import(module, alias.name, alias.asname or alias.name)
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
