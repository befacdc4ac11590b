"""Unpacking zip and tar archives from people we do not know."""

import errno
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO

from bcd.data.acquire.download import Progress, quiet
from bcd.data.acquire.manifest import File
from bcd.errors import UserError
from bcd.files import require_space, writing

CHUNK = 1 << 20
CORRUPT = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # zipfile: unknown compression
    ValueError,  # nonsense numbers or names in headers
)


@dataclass(frozen=True)
class Member:
    """A regular file in an archive: name as stored, declared size in bytes, and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


class Refused(Exception):
    """A member, or the whole archive, that we will not unpack; the message says why."""


def unpack(
    archive: Path,
    target: Path,
    *,
    keep: str | Sequence[str] = "",
    remedy: str = "get it anew",
    progress: Progress = quiet,
) -> list[File]:
    """Unpack a zip (by its `.zip` suffix) or tar file into the existing directory `target`; returns what it wrote.

    With `keep`, only what lies below these paths is written. They begin at the archive's root, or one level down
    (GitHub wraps a repository in a directory), which is then dropped. Paths in the result are relative to `target`.

    All names are checked before anything is written. Raises UserError, naming archive and member and ending with
    `remedy`, for:

    - names that are absolute or leave the target
    - links, devices and other special members
    - encrypted, truncated or corrupt data
    - two members of one name, and nothing below any of `keep`
    - declared sizes beyond the free disk space
    """
    kept = [PurePosixPath(path) for path in ([keep] if isinstance(keep, str) else keep)] or [PurePosixPath()]
    member = ""
    try:
        with _opened(archive) as members:
            wanted = [(path, m) for m in members if (path := _place(m.name, kept)) is not None]
            if not wanted:
                folders = " or ".join(str(folder) if folder.parts else "its root" for folder in kept)
                raise Refused(f"it has no file below {folders}")
            total = sum(m.size for _, m in wanted)
            require_space(target, total, f"unpacking {archive}")
            files, done = [], 0
            for path, m in wanted:
                member = m.name
                files.append(_extract(m, target, path))
                done += m.size
                progress(f"unpack {archive.name}", done, total)
            return files
    except (Refused, *CORRUPT) as error:
        reason = str(error) if isinstance(error, Refused) else f"truncated or corrupt ({_first_line(error)})"
        where = f"{archive}, member {member!r}" if member else str(archive)
        raise UserError(f"cannot unpack {where}: {reason}; {remedy}") from error
    except OSError as error:
        # Bad data makes gzip and bz2 raise an OSError without a number, and zipfile seek to absurd places.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise UserError(f"cannot unpack {archive}: truncated or corrupt ({error}); {remedy}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _opened(archive: Path) -> Iterator[list[Member]]:
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as file:
            yield [_zip_member(file, info) for info in file.infolist() if info.filename[-1:] != "/"]
    else:
        with tarfile.open(archive) as file:
            members = [_tar_member(file, info) for info in file.getmembers() if not info.isdir()]
            _check_tar_end(file)
            yield members


def _zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    if info.flag_bits & 1:
        raise Refused(f"member {info.filename!r} is encrypted")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise Refused(f"member {info.filename!r} is a link or special file")
    return Member(info.filename, info.file_size, lambda: file.open(info))


def _tar_member(file: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    if not info.isreg():
        raise Refused(f"member {info.name!r} is a link or special file")

    def opened() -> IO[bytes]:
        stream = file.extractfile(info)
        assert stream is not None  # as the member is a regular file
        return stream

    return Member(info.name, info.size, opened)


def _check_tar_end(file: tarfile.TarFile) -> None:
    """tarfile takes a damaged or missing header after the first for the end; the real end is a zero block."""
    stream = file.fileobj
    assert stream is not None  # as the archive is open
    stream.seek(file.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise Refused("truncated or corrupt (no end-of-archive block)")
    # A compressed stream checks its own checksum only when it is read to its end.
    while stream.read(CHUNK):
        pass


def _place(name: str, kept: Sequence[PurePosixPath]) -> PurePosixPath | None:
    """Where a member goes below the target, None when it is not wanted; raises Refused for unsafe names."""
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or not path.parts
        or "\\" in name
        or re.match("[A-Za-z]:", name)
        or not name.isprintable()
        or any(len(part.encode()) > 255 for part in path.parts)
    ):
        raise Refused(f"member {name!r} has an unsafe name")
    for place in (path, PurePosixPath(*path.parts[1:])):
        if any(place.is_relative_to(folder) for folder in kept):
            return place
    return None


def _extract(member: Member, target: Path, path: PurePosixPath) -> File:
    """Write one member and return its File, hashed on the way."""
    file = target / path
    digest, size = sha256(), 0
    try:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            sink = open(file, "xb")  # noqa: SIM115 closed by the `with` below
    except UserError as error:
        if isinstance(error.__cause__, FileExistsError | NotADirectoryError):
            raise Refused("another member has the same path") from None
        raise
    with writing(file), sink, member.open() as stream:
        while chunk := stream.read(CHUNK):
            sink.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    if size != member.size:
        raise Refused(f"truncated or corrupt ({size} bytes of {member.size})")
    return File(path.as_posix(), size, digest.hexdigest())
