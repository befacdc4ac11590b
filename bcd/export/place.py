"""A run exported to a place of the user's: where that is, what is refused before it begins, and one writer at a time.

What is in a file is no matter of this module; a suite, whose files lie in the store, does without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bcd.config.exportable import require_exportable
from bcd.config.schema.exports import Export
from bcd.errors import UserError
from bcd.export.build import Say, export
from bcd.export.finished import Finished
from bcd.export.formats import of_name
from bcd.export.sidecar import sidecar_path
from bcd.files import alone

FOLDER = Path("exports")


def export_to(
    run: Finished, form: Export, out: Path | str | None = None, *, opset: int | None = None, force: bool = False,
    say: Say,
) -> Path:  # fmt: skip
    """Write a run as a file of another runtime, its JSON beside it, and return the file's path.

    out: the file; a folder, as every name that ends in / or has no suffix; or None for the folder `exports`. Folders
    are made. opset: of ONNX, None for our default. force: replace what is there.

    Raises UserError for what docs/guides/export.md lists, and what an extra cannot mend before one that is missing.
    """
    exporter = of_name(form.format)
    require_exportable(run.spec.training.model, dynamic=form.dynamic, where=run.key)
    if form.format != "onnx":
        exporter.default_opset(opset)
    path = output_path(run, form, out, exporter.SUFFIXES)
    require_writable(path)
    busy = f"{path} is being written by another process; wait for it, or say --out for another place"
    with _folders(path), alone(path, busy):
        require_free(path, exporter.SUFFIXES, force=force)
        return export(run, form, path, opset=opset, say=say)


def output_path(run: Finished, form: Export, out: Path | str | None, suffixes: Sequence[str]) -> Path:
    """The file that is written; raises UserError for a name with another suffix, and for a file that is no folder."""
    suffix, path = suffixes[0], FOLDER if out is None else Path(out)
    if out is None or str(out).endswith(os.sep) or path.is_dir() or not path.suffix:
        if path.exists() and not path.is_dir():
            raise UserError(f"--out {out}: is a file and no folder; name a folder, or a file that ends in {suffix}")
        name = run.key.partition("?")[0].replace("/", ".")
        name += "" if form.precision == "float32" else f"-{form.precision}"
        name += "-dynamic" if form.dynamic else ""
        return path / f"{name}{suffix}"
    if path.suffix != suffix:
        raise UserError(
            f"--out {path}: a file of {form.format} ends in {suffix}; name it so, or name a folder, with {os.sep} at "
            "its end"
        )
    return path


def require_writable(path: Path) -> None:
    """Raise UserError where a file cannot be made, before anything is made for it."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise UserError(f"--out {path}: {there} is no folder; name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {path}: the folder {there} cannot be written; name another place")


def require_free(path: Path, suffixes: Sequence[str], *, force: bool) -> None:
    """Raise UserError for a file of the export that is there, unless `force`, and for a folder in its place."""
    for one in (*(path.with_suffix(own) for own in suffixes), sidecar_path(path)):
        if one.is_dir():
            raise UserError(f"--out {path}: {one} is a folder; name another place")
        if one.exists() and not force:
            raise UserError(f"{one} exists; say --force to replace it, or --out for another place")


@contextmanager
def _folders(path: Path) -> Iterator[None]:
    """Make the folders of a file, and remove those again that are empty in the end."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # it holds the file
                folder.rmdir()
