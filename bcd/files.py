"""Writing files whole or not at all, hashing them, and saying plainly when the disk will not take them."""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bcd.errors import UserError

# EFBIG is what a file-size limit (`ulimit -f`) answers, EDQUOT a user's quota: the remedy is the same.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST})
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # how `atomic_write` calls a file that is not whole yet


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a path that cannot be written into a UserError naming `path`.

    Other errors pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise UserError(f"disk full while writing {path}; free space and run the same command again") from error
        if error.errno in NOT_WRITABLE:
            raise UserError(
                f"cannot write {path} ({error.strerror}); mend the path or its permissions and try again"
            ) from error
        raise


def atomic_write(path: Path, data: bytes | memoryview | str) -> None:
    """Write `data` (text as UTF-8) so that `path` holds its old or its new bytes, never a part of them.

    The parent directory is created when missing, and what killed writers left in it is removed. Raises UserError when
    the disk is full or the path cannot be written; the temporary file `.<name>.<random>.tmp` beside it is removed then.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        descriptor, temporary = _locked_temporary(path)
        try:
            with open(descriptor, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """A new file beside `path`, locked as long as it is open: so `sweep` knows that its writer lives."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # no locks here: then `sweep` removes nothing either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # swept before it was locked


def sweep(directory: Path) -> None:
    """Remove the temporary files of writers that were killed; those of living ones, on any machine, are locked."""
    for entry in directory.iterdir():
        if not TEMPORARY.fullmatch(entry.name):
            continue
        # Another sweeper was faster, the file is not ours, or its writer lives.
        with suppress(OSError), entry.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            entry.unlink()


def sync_directory(path: Path) -> None:
    """Make the renames done inside directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(directory: Path, needed: int, purpose: str) -> None:
    """Raise UserError, saying how many bytes are missing, unless `directory`'s disk has `needed` bytes free."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"{purpose} needs {needed} bytes but the disk of {directory} has {free} free; "
            f"free {needed - free} more bytes and run the same command again"
        )


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 lower-case hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
