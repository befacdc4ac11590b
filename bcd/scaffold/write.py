"""The files of `bcd new`: an entry at the end of params/datasets.yaml, and a suite; nothing is overwritten unasked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bcd.errors import UserError
from bcd.files import atomic_write, read_text

MARK = "# Written by `bcd new`"
TRIAL = """\
# For a quick trial write `seeds: 1`, and smaller numbers for the `steps` of the key `set`. Seeds that are trained stay
# when you raise `seeds`; other `steps` are other runs, and the old ones stay in results/store.
"""
WIDTH = 110  # columns of a line


def require_free(name: str, folder: Path, *, force: bool) -> None:
    """Raise UserError where an entry or a suite of that name exists, unless it is ours and `force` replaces it."""
    text, suite = _datasets(folder), suite_file(name, folder)
    if re.search(rf"^{re.escape(name)}:", text, re.MULTILINE):
        _require_ours(f"{folder / 'datasets.yaml'} has '{name}'", bool(_block(name).search(text)), force)
    if suite.exists():
        _require_ours(f"there is a file {suite}", MARK in read_text(suite), force)


def _require_ours(what: str, ours: bool, force: bool) -> None:
    if not ours:
        raise UserError(f"{what} already, which `bcd new` did not write; give another name by --name")
    if not force:
        raise UserError(f"{what} already; give another name by --name, or replace it by --force")


def write(name: str, entry: dict[str, Any], suite: dict[str, Any], origin: str, folder: Path) -> None:
    """Write the entry and the suite; an entry of `bcd new` of that name is replaced, all else stays as it is."""
    text = _block(name).sub("", _datasets(folder))
    block = f"\n{MARK} from {origin}; it is yours: change what is wrong.\n{_yaml({name: entry})}"
    atomic_write(folder / "datasets.yaml", text.rstrip("\n") + "\n" + block)
    head = f"{MARK} from {origin}; it is yours: change what you like.\n{TRIAL}"
    atomic_write(suite_file(name, folder), head + _yaml(suite))


def suite_file(name: str, folder: Path) -> Path:
    """Where the suite of that name is."""
    return folder / "suites" / f"{name}.yaml"


def _datasets(folder: Path) -> str:
    return read_text(folder / "datasets.yaml", "run the command in the project's folder")


def _block(name: str) -> re.Pattern[str]:
    """The entry that `bcd new` wrote of that name, with its comment, up to the next line that is not indented."""
    return re.compile(rf"\n?{re.escape(MARK)} from [^\n]*\n{re.escape(name)}:[^\n]*\n(?:[ \t][^\n]*\n|\n(?=[ \t]))*")


class _Plain(yaml.SafeDumper):
    """Writes a value that stands twice twice, and not as an alias."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _yaml(values: dict[str, Any]) -> str:
    return yaml.dump(values, Dumper=_Plain, sort_keys=False, default_flow_style=None, width=WIDTH, allow_unicode=True)
