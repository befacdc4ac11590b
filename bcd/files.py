"""Writing files whole or not at all, hashing them, and saying plainly when the disk will not take them."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bcd.errors import UserError

# EFBIG is what a file-size limit (`ulimit -f`) answers, EDQUOT a user's quota: the remedy is the same.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST})


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


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) so that `path` holds its old or its new bytes, never a part of them.

    The parent directory is created when missing. Raises UserError when the disk is full or the path cannot
    be written; the temporary file `.<name>.<random>.tmp` beside it is removed then.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


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
