"""Own data from a folder of this machine: copied, so that what a run was trained on stays as it was recorded."""

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from bcd.data.acquire.download import Progress, quiet
from bcd.data.acquire.manifest import ArchiveRecord, File
from bcd.errors import UserError
from bcd.files import reading, require_space, sha256_file, writing

BLOCK = 1 << 20


def paths_in(folder: Path) -> list[str]:
    """The files below a folder, links to folders followed, as sorted POSIX paths; hidden ones are left out.

    Raises UserError for a folder that is not there, and for a name that cannot be recorded.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; correct `folder` in params/datasets.yaml")
    found = list[Path]()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        above = {one.resolve() for one in (here, *here.parents)}  # a link to one of them would lead round in a circle
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() not in above]
        found += [here / name for name in names if name[0] != "."]
    paths = sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())
    if strange := next((path for path in paths if not path.isprintable()), None):
        raise UserError(f"{folder} has {strange!r}, whose name is no printable text; rename it")
    return paths


def copied(folder: Path, paths: Collection[str], stage: Path, progress: Progress = quiet) -> list[File]:
    """Copy files of a folder below `stage`, and return them, hashed on the way.

    Raises UserError for a file that cannot be read, and for a full disk.
    """
    total, done, files = sum((folder / path).stat().st_size for path in paths), 0, []
    require_space(stage, total, f"copying {folder}")
    for path in sorted(paths):
        files.append(_copy(folder / path, stage, path))
        done += files[-1].bytes
        progress(f"copy {folder.name}", done, total)
    return files


def record(folder: Path, files: Iterable[File]) -> ArchiveRecord:
    """What a manifest says of the folder, as of an archive: its name, and a hash of the files' paths and bytes."""
    listed = sorted(files, key=lambda file: file.path)
    lines = "".join(f"{file.path}\0{file.sha256}\n" for file in listed)
    sha256 = hashlib.sha256(lines.encode()).hexdigest()
    return {
        "archive": folder.resolve().name,
        "url": None,
        "bytes": sum(file.bytes for file in listed),
        "sha256": sha256,
    }


def changed(folder: Path, paths: Collection[str], recorded: Sequence[ArchiveRecord]) -> bool:
    """Whether the files that are used of the folder are not those of the record; it reads them all."""
    sizes = {path: (folder / path).stat().st_size for path in paths}
    if [sum(sizes.values())] != [one["bytes"] for one in recorded]:
        return True
    now = record(folder, [File(path, size, sha256_file(folder / path)) for path, size in sizes.items()])
    return now["sha256"] != recorded[0]["sha256"]


def require_apart(folder: Path, root: Path) -> None:
    """Raise UserError where the folder and the dataset's own folder `root` lie in one another."""
    ours, theirs = root.resolve(), folder.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise UserError(
            f"{folder} and {root}, where its files are copied to, lie in one another; move your files elsewhere, and "
            "correct `folder` in params/datasets.yaml"
        )


def _copy(source: Path, stage: Path, path: str) -> File:
    target, digest, size = stage / path, hashlib.sha256(), 0
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with reading(source), open(source, "rb") as stream, writing(target), open(target, "xb") as sink:
        while block := stream.read(BLOCK):
            sink.write(block)
            digest.update(block)
            size += len(block)
    return File(path, size, digest.hexdigest())
