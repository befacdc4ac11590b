"""Archives of a mirror: a directory whose MANIFEST.csv lists what it holds.

Columns used: archive (path below the mirror), bytes, sha256, notes (how the copy differs from the original).
"""

import csv
import hashlib
import io
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bcd.config.schema.data import Archive
from bcd.errors import UserError
from bcd.files import read_text, reading, sha256_file

LISTING = "MANIFEST.csv"
COLUMNS = frozenset({"archive", "bytes", "sha256", "notes"})
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Obtained:
    """An archive on disk whose bytes were verified; `url` is None when they came from a mirror.

    official: the bytes are those the dataset's authors publish. note: what to know about them, or "".
    """

    archive: Archive
    path: Path
    bytes: int
    sha256: str
    url: str | None
    official: bool
    note: str


def from_mirror(mirror: Path, dataset: str, archives: Sequence[Archive]) -> list[Obtained] | None:
    """The archives, read in place from `mirror`; None, with a warning, when it has none of them.

    Raises UserError when the mirror or its listing is missing, and when size or hash are not as listed.
    It does so, too, when some archives are listed but not all that are not optional: half a sample and half the
    official data would be neither.
    """
    rows = _rows(mirror)
    listed = [archive for archive in archives if archive.archive in rows]
    if not listed:
        log.warning("mirror %s has no archive of %s; going to the network", mirror, dataset)
        return None
    if missing := [archive.archive for archive in archives if archive not in listed and not archive.optional]:
        raise UserError(
            f"{mirror / LISTING} lists only some archives of {dataset}, not {missing[0]}; complete the mirror, "
            "or fetch without it"
        )
    return [_verified(archive, mirror, rows[archive.archive]) for archive in listed]


def listed(mirror: Path) -> dict[str, str]:
    """Archive -> SHA-256, as the mirror's listing has it; nothing where there is no listing."""
    return {name: row["sha256"] for name, row in _rows(mirror).items()} if (mirror / LISTING).is_file() else {}


def is_official(archive: Archive, path: Path, sha256: str) -> bool | None:
    """Whether `path`, whose hash is `sha256`, holds the official bytes; None when no hash of these is known."""
    if archive.sha256:
        return sha256 == archive.sha256
    if archive.md5:
        with reading(path), open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == archive.md5
    return None


def _rows(mirror: Path) -> dict[str, dict[str, str]]:
    listing = mirror / LISTING
    if not mirror.is_dir():
        raise UserError(f"mirror {mirror} is not a directory; check --mirror or BCD_MIRROR")
    text = read_text(listing, "check --mirror or BCD_MIRROR")
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    try:
        if not set(reader.fieldnames or ()) >= COLUMNS:
            raise UserError(f"{listing}: its first line must name the columns {', '.join(sorted(COLUMNS))}")
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{listing}: line {reader.reader.line_num}: {error}; mend the line") from None
    for number, row in enumerate(rows, 1):
        if not re.fullmatch("[0-9]{1,18}", row["bytes"] or "") or not row["sha256"]:
            raise UserError(f"{listing} row {number} needs {', '.join(sorted(COLUMNS))}; mend the row")
    return {row["archive"]: row for row in rows}


def _verified(archive: Archive, mirror: Path, row: Mapping[str, str]) -> Obtained:
    path = mirror / archive.archive
    if not path.is_file():
        raise UserError(f"{path} is missing though {LISTING} lists it; complete the mirror")
    size = path.stat().st_size
    if size != int(row["bytes"]):
        raise UserError(f"{path} has {size} bytes but {LISTING} says {row['bytes']}; copy it to the mirror anew")
    sha256 = sha256_file(path)
    if sha256 != row["sha256"]:
        raise UserError(f"{path} has sha256 {sha256} but {LISTING} says {row['sha256']}; copy it to the mirror anew")
    official = bool(is_official(archive, path, sha256))
    note = "" if official else f"repack or sample from a mirror: {row['notes'] or 'no notes'}"
    return Obtained(archive, path, size, sha256, None, official, note)
