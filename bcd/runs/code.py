"""Which code a run's weights and its metrics are made by, as two hashes.

The code is the import closure of the entry points below, read from the source; nothing is imported, so planning needs
no torch. A hash is over what the modules say and not over where they lie: a file that moves leaves it as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bcd.errors import UserError
from bcd.runs.source import Import, Known, Part

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

# What evaluates a student that left PyTorch; its format's module is a start of its own.
EXPORTS, EXPORTED = "bcd.export", "bcd.export.evaluated"

# Modules, with all below them, that make no run stale, and why.
BOUNDARY = {
    "bcd.__init__": "holds the version of the package",
    "bcd.cli": "says which runs to make, not how",
    "bcd.config": "reads params into values, and the values are in the spec of a run",
    "bcd.data.formats.__init__": "names the formats; a run starts from its own",
    "bcd.data.acquire": "gets the data, whose bytes the manifest in the spec has the hashes of",
    "bcd.distill.distiller": "serves the loops of other projects; ours calls its parts",
    "bcd.errors": "words messages; a finished run has raised none that its result depends on",
    "bcd.files": "writes and hashes bytes that others made",
    "bcd.planning": "estimates what runs cost",
    "bcd.report": "shows results that are there",
    "bcd.runs": "finds, keeps and judges runs",
    "bcd.train.standstill": "says what a training was; no step depends on it",
    "bcd.tracking": "copies results that are there",
}
EVALUATION_ONLY = {"bcd.metrics": "measures a model; no loss and no batch is made with it"}
IN_PYTORCH = {"bcd.export": "evaluates students that left PyTorch; those runs start from it"}
TRAINING_ONLY = {
    "bcd.distill": "compares student and teacher; an evaluation has one model with finished weights",
    "bcd.losses": "gives the gradients of training",
}


class CodeHashes(NamedTuple):
    """Hashes of the code that a run's weights, and that its metrics, are made by; 16 hex digits each."""

    train: str
    evaluate: str


def fingerprints(
    task: str, data_format: str, terms: Collection[str], export_format: str = "", package: Path = PACKAGE
) -> CodeHashes:
    """The hashes of today's code for a run; `package` is the folder `bcd`.

    export_format: of the file that is evaluated, "" for PyTorch.

    Files are read once in a process. Raises ModuleNotFoundError for an entry point or an import that has no file, and
    KeyError for a term that is not in the registry.
    """
    return _package(package).fingerprints(task, data_format, frozenset(terms), export_format)


def modules(
    task: str, data_format: str, terms: Collection[str], export_format: str = "", package: Path = PACKAGE
) -> tuple[set[str], set[str]]:
    """Names of the modules that the two hashes are made of; the entry of a term is `bcd.losses[term]`."""
    found = _package(package)
    train, evaluate = _questions(task, data_format, terms, export_format)
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


def _questions(
    task: str, data_format: str, terms: Collection[str], export_format: str = ""
) -> tuple[_Question, _Question]:
    shared = (TASKS[task], f"{FORMATS}.{data_format}")
    entries = tuple(f"{REGISTRY}[{term}]" for term in sorted(terms))
    exported = (EXPORTED, f"{EXPORTS}.{export_format}") if export_format else ()
    beyond = {*BOUNDARY, *TRAINING_ONLY, *(() if exported else IN_PYTORCH)}
    return (
        _Question((LOOP, *shared, *entries), frozenset({*BOUNDARY, *EVALUATION_ONLY, *IN_PYTORCH})),
        _Question((EVALUATION, *shared, *exported), frozenset(beyond)),
    )


class _Package:
    """The modules of a package, read when they are asked for."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._known = Known(folder)
        self._parts: dict[str, Part] = {}
        self._after: dict[str, list[str]] = {}
        self._files: dict[str, Path | None] = {}
        self._hashes: dict[_Question, str] = {}

    def fingerprints(self, task: str, data_format: str, terms: frozenset[str], export_format: str) -> CodeHashes:
        hashes = CodeHashes(*map(self._hash, _questions(task, data_format, terms, export_format)))
        self._known.keep()
        return hashes

    def closure(self, question: _Question) -> dict[str, Part]:
        """The modules that are imported from the starts on, directly or not, without those beyond the stops."""
        found: dict[str, Part] = {}
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

    def _lines(self, parts: Mapping[str, Part]) -> Iterator[str]:
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
        if name not in self._after:
            parent = _parent(name)
            imported = [self._source(line) for line in self._part(name).imports]
            if name == MAKER:  # A run names its own task as a start.
                imported = [source for source in imported if source not in TASKS.values()]
            self._after[name] = imported + ([parent] if parent and self._file(parent) else [])
        return self._after[name]

    def _source(self, line: Import) -> str:
        """The module that an import has its name from, or the module that it names."""
        return f"{line.module}.{line.name}" if self._is_module(line) else line.module

    def _is_module(self, line: Import) -> bool:
        return bool(line.name) and self._file(f"{line.module}.{line.name}") is not None

    def _part(self, name: str) -> Part:
        if name not in self._parts:
            module, _, term = name.removesuffix("]").partition("[")
            file = self._file(module)
            if file is None:
                raise ModuleNotFoundError(f"no module {module} in {self._folder}", name=module)
            inside = module if file.stem == "__init__" else _parent(module)
            table = TERMS if module == REGISTRY else ""
            try:
                self._parts[name] = self._known.parse(file.read_text(encoding="utf-8"), inside, table)[term]
            except SyntaxError as error:
                raise UserError(
                    f"{file}:{error.lineno}: {error.msg}; mend the file, so that results can be compared with its code"
                ) from None
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


@cache
def _beyond(name: str, stops: frozenset[str]) -> bool:
    if f"{name}.__init__" in stops:
        return True
    return any(name == stop or name.startswith((f"{stop}.", f"{stop}[")) for stop in stops)
