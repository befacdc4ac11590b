"""`data/<dataset>/manifest.json` and `files.csv`: which bytes a dataset consists of.

The manifest is small and deterministic, so it can be an edge of the DAG: its SHA-256 stands for the whole
dataset. `files.csv` lists path, bytes and sha256 of every payload file; the manifest carries its hash.
"""

import csv
import hashlib
import io
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from bcd.errors import UserError, pick
from bcd.files import atomic_write, read_bytes, sha256_file

MANIFEST = "manifest.json"
FILES = "files.csv"
ARCHIVES = "archives"
COLUMNS = ("path", "bytes", "sha256")
FIELDS = ("dataset", "origin", "official", "note", "licence", "source", "archives", "request", "splits")
# Fields that manifests got later, and what stands for them in an older one.
LATER: Mapping[str, Any] = {"split_sha256": {}, "check": {}}
# "local": every archive was put in place by hand.
Origin = Literal["network", "mirror", "local", "generated"]
ORIGINS: tuple[Origin, ...] = ("network", "mirror", "local", "generated")
Request = Mapping[str, Any]
"""What was asked for, as JSON values: a finished dataset answers the request that it was made for."""


class ArchiveRecord(TypedDict):
    """An archive as it was used; `url` is None when it came from a mirror or was put in place by hand."""

    archive: str
    url: str | None
    bytes: int
    sha256: str


class SplitFacts(TypedDict):
    """What a dataset's splits consist of.

    splits        the samples per split
    split_sha256  per split, a hash of its samples: the paths and bytes of their images and labels, in their order
    check         what a look at every sample found: per split a `bcd.data.check.SplitCheck`, and of which params
    """

    splits: dict[str, int]
    split_sha256: NotRequired[dict[str, str]]
    check: NotRequired[Mapping[str, Any]]


class Facts(SplitFacts):
    """What is to be said of a dataset beside its files."""

    dataset: str
    origin: Origin
    official: bool
    note: NotRequired[str]
    licence: str
    source: str
    archives: NotRequired[list[ArchiveRecord]]


class Fields(Facts):
    """What a manifest says, apart from the files."""

    request: Request


@dataclass(frozen=True)
class File:
    """One payload file: POSIX path relative to the dataset's directory, size in bytes, SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A loaded manifest. `sha256` is that of manifest.json's bytes; `files` maps a path to its File."""

    root: Path
    sha256: str
    dataset: str
    origin: Origin
    official: bool
    note: str
    licence: str
    source: str
    archives: list[ArchiveRecord]
    request: Request
    splits: dict[str, int]
    split_sha256: dict[str, str]
    check: Mapping[str, Any]
    files: Mapping[str, File]

    @property
    def complete(self) -> bool:
        """Whether it has the fields that manifests got later."""
        return self.split_sha256.keys() >= self.splits.keys()

    @property
    def fields(self) -> Fields:
        """What the manifest says, apart from the files."""
        stated = {name: getattr(self, name) for name in (*FIELDS, *LATER)}
        return cast(Fields, stated)  # as `load` has read them from such a file

    def read(self, path: str) -> bytes:
        """Bytes of the payload file `path`; raises UserError unless they are those that were recorded."""
        file = self.files.get(path)
        if file is None:
            raise UserError(
                f"{self.root / path} is not in {self.root / FILES}; run `bcd fetch {self.dataset} --accept`"
            )
        return read(self.root, file, self.dataset)

    def sha256_of(self, split: str) -> str:
        """Hash of what a split consists of; raises UserError where the manifest is older than such hashes."""
        if not self.complete:
            raise UserError(f"{self.root / MANIFEST} is of an older version; run `bcd fetch {self.dataset}` to mend it")
        return pick(self.split_sha256, split, f"{self.root / MANIFEST}: split_sha256")

    def changed(self) -> list[str]:
        """Paths of the payload files that are there with other bytes; reads them all."""
        there = (file for file in self.files.values() if (self.root / file.path).is_file())
        return [file.path for file in there if sha256_file(self.root / file.path) != file.sha256]

    def sizes_match(self) -> bool:
        """Whether every payload file exists with its recorded size: cheap, it opens none of them."""
        for file in self.files.values():
            try:
                if (self.root / file.path).stat().st_size != file.bytes:
                    return False
            except OSError:
                return False
        return True


def read(root: Path, file: File, dataset: str) -> bytes:
    """Bytes of a payload file below `root`; raises UserError unless they are those that were recorded."""
    data = read_bytes(root / file.path, f"run `bcd fetch {dataset} --force`")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(f"{root / file.path} differs from what {FILES} records; {remedy(dataset)}")
    return data


def remedy(dataset: str) -> str:
    """What to do about a payload file that is not as it was recorded."""
    command = f"`bcd fetch {dataset}"
    return f"run {command} --accept` if you have changed it, or {command} --force` to have it as it was"


def scan(root: Path, tops: Collection[str] | None = None) -> list[File]:
    """Hash every payload file below `root`: all but the manifest, archives/ and top-level dot names.

    tops: the top-level names to look below, all by default.
    """
    places = [root / top for top in tops] if tops is not None else [root]
    found = (path for place in places for path in ([place] if place.is_file() else place.rglob("*")))
    paths = [path for path in found if path.is_file() and _is_payload(path.relative_to(root))]
    return [File(path.relative_to(root).as_posix(), path.stat().st_size, sha256_file(path)) for path in paths]


def _is_payload(path: Path) -> bool:
    top = path.parts[0]
    return top not in (MANIFEST, FILES, ARCHIVES) and not top.startswith(".")


def write(root: Path, fields: Fields, files: Iterable[File] | None = None) -> Manifest:
    """Write files.csv, then manifest.json, each atomically, and return the manifest as `load` would.

    files: the payload; found by `scan(root)` when None.

    Raises ValueError for other fields, UserError when the disk is full.
    """
    stated = {"note": "", "archives": [], **LATER} | dict(fields)
    if set(stated) != {*FIELDS, *LATER} or stated["origin"] not in ORIGINS:
        raise ValueError(f"manifest needs the fields {FIELDS} with origin one of {ORIGINS}, got {stated}")
    listed = sorted(scan(root) if files is None else files, key=lambda file: file.path)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((file.path, file.bytes, file.sha256) for file in listed)
    text = table.getvalue()
    atomic_write(root / FILES, text)
    stated |= {"files": len(listed), "files_sha256": hashlib.sha256(text.encode()).hexdigest()}
    atomic_write(root / MANIFEST, json.dumps(stated, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return load(root)


@dataclass(frozen=True)
class Identity:
    """What results are compared with: the hash of manifest.json, and those of the splits, as of `SplitFacts`."""

    sha256: str
    split_sha256: Mapping[str, str]


def identity(root: Path) -> Identity | None:
    """The identity of the dataset in `root`, from its small manifest.json alone; None where there is none.

    Raises UserError for a damaged one.
    """
    if not (root / MANIFEST).exists():
        return None
    sha256, fields = _fields(root)
    return Identity(sha256, fields["split_sha256"])


def load(root: Path) -> Manifest:
    """Read the manifest of the dataset in `root`.

    Raises UserError when manifest.json or files.csv is missing, unreadable, or one does not fit the other.
    """
    root = Path(root)
    sha256, fields = _fields(root)
    table = read_bytes(root / FILES, f"run `bcd fetch {root.name}`")
    if hashlib.sha256(table).hexdigest() != fields.pop("files_sha256"):
        raise UserError(f"{root / FILES} is not the file that {MANIFEST} was written for; run `bcd fetch {root.name}`")
    return Manifest(root=root, sha256=sha256, files=listed(table), **fields)


def _fields(root: Path) -> tuple[str, dict[str, Any]]:
    """The hash of manifest.json, and what it says."""
    remedy = f"run `bcd fetch {root.name}`"
    data = read_bytes(root / MANIFEST, remedy)
    try:
        fields = json.loads(data)
        values = {name: fields[name] for name in (*FIELDS, "files_sha256")}
        values |= {name: fields.get(name, LATER[name]) for name in LATER}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{root / MANIFEST} is not a manifest ({error}); {remedy}") from None
    return hashlib.sha256(data).hexdigest(), values


@lru_cache(maxsize=4)
def listed(table: bytes) -> Mapping[str, File]:
    """The rows of files.csv, kept as a job loads the same manifest again and again; nobody may change them.

    Raises ValueError for other bytes.
    """
    rows = csv.DictReader(io.StringIO(table.decode()))
    try:
        return {row["path"]: File(row["path"], int(row["bytes"]), row["sha256"]) for row in rows}
    except (KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"not a list of files: {error}") from None


def verify(root: Path) -> Manifest:
    """Load the manifest and hash every payload file; raises UserError naming the first that differs."""
    manifest = load(root)
    for path in manifest.files:
        manifest.read(path)
    return manifest
