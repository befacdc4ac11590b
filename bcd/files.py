"""Files of the user: read, written whole or not at all, locked, hashed; and what the system refuses, as a sentence."""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bcd.errors import UserError

# EFBIG is what a file-size limit (`ulimit -f`) answers, EDQUOT a user's quota: the remedy is the same.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSED = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
        errno.ELOOP, errno.ENOTEMPTY, errno.EBUSY, errno.ETXTBSY,
    }
)  # fmt: skip
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")  # how `atomic_write` calls a file that is not whole yet
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})


@contextmanager
def reading(path: Path, missing: str = "mend its name or put it there") -> Iterator[None]:
    """Turn whatever keeps the system from reading `path`, and text that is not UTF-8, into a UserError naming it.

    missing: what to do about a file that is not there.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {missing}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8, or get it anew") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read {_because(path, error, 'mend the file or its permissions')}") from error


def read_bytes(path: Path, missing: str = "mend its name or put it there") -> bytes:
    """The bytes of a file; raises UserError as `reading` does."""
    with reading(path, missing):
        return path.read_bytes()


def read_text(path: Path, missing: str = "mend its name or put it there") -> str:
    """The text of a UTF-8 file, its newlines as they are; raises UserError as `reading` does."""
    data = read_bytes(path, missing)
    with reading(path):
        return data.decode()


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
        if error.errno in REFUSED:
            because = _because(path, error, "mend the path or its permissions and try again")
            raise UserError(f"cannot write {path} {because}") from error
        raise


def _because(path: Path, error: OSError, remedy: str) -> str:
    """`(reason); remedy`, where both may be a file that is where a folder of `path` would have to be."""
    file = next((one for one in path.parents if os.path.exists(one) and not os.path.isdir(one)), None)
    return f"({file} is a file and no folder); move it away" if file else f"({error.strerror or error}); {remedy}"


def explained(error: OSError | UnicodeEncodeError) -> str | None:
    """A sentence for what the system refused, as far as it says which file; None for anything else.

    For the end of a command: nearer to its cause, `reading` and `writing` know more.
    """
    if isinstance(error, UnicodeEncodeError):
        what = error.object[error.start : error.end]
        return f"{what!r} cannot be written in the encoding {error.encoding} of this locale; set LC_ALL=C.UTF-8"
    if error.errno in NO_ROOM:
        return f"disk full{f' while writing {error.filename}' if error.filename else ''}; free space and try again"
    if error.filename is None or error.strerror is None:
        return None
    name = Path(os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename))
    if whole := TEMPORARY.fullmatch(name.name):
        name = name.with_name(whole[1])  # which the user has named
    return f"{name}: {error.strerror}; mend the path or its permissions and run the same command again"


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold the lock of the file `path`, which names the process that has it; it is freed however that ends.

    busy: what to say when another process holds it, where PID becomes that process's id; None waits for it.

    Raises UserError when it is held, when `path` cannot be written, and where the file system knows no locks.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="ascii", errors="replace")  # noqa: SIM115 closed by the `with` below
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            file.seek(0)
            raise UserError((busy or "").replace("PID", file.read().strip() or "unknown")) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise UserError(
                f"{path} cannot be locked ({error.strerror}): its file system knows no locks, which keep two "
                "processes apart; mount it with locks (Lustre: -o flock), or work on another disk"
            ) from None
        with writing(path):
            file.truncate(0)
            os.write(file.fileno(), str(os.getpid()).encode())  # unbuffered: closing would fail again, without a name
        yield


@contextmanager
def alone(path: Path, busy: str) -> Iterator[None]:
    """Hold `path`, whether it exists or not, against other processes that ask so; leaves nothing beside it.

    The lock is a file as of a writer that is at work, so what a kill leaves of it is removed by `sweep`. Where the file
    system knows no locks nobody is kept apart. Raises UserError `busy` when another process holds `path`, and as
    `writing` does.
    """
    name = path.with_name(f".{path.name}.{'0' * 8}.tmp")
    with writing(path):
        name.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _held(name, busy)
    try:
        yield
    finally:
        name.unlink(missing_ok=True)
        os.close(descriptor)


def _held(name: Path, busy: str) -> int:
    """The descriptor of the lock file `name`, made and locked."""
    while True:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(busy) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # its last holder removed it before it was locked


def atomic_write(path: Path, data: bytes | memoryview | str) -> None:
    """Write `data` (text as UTF-8) so that `path` holds its old or its new bytes, never a part of them.

    The parent directory is created when missing, and what killed writers left in it is removed. Raises UserError when
    the disk is full or the path cannot be written; the temporary file `.<name>.<random>.tmp` beside it is removed then.
    """
    path = Path(path)
    with writing(path), _staged(path, data) as temporary:
        os.replace(temporary, path)
        sync_directory(path.parent)


def write_together(files: Mapping[Path, bytes | str]) -> None:
    """Write files of one folder, the last of which speaks of the others, as `atomic_write` does.

    The first one is replaced when all are on the disk. The last one is away meanwhile: so it never speaks of other
    files than those that are there, whenever the process is killed.
    """
    with ExitStack() as stack:
        staged = {}
        for path, data in files.items():
            stack.enter_context(writing(path))
            staged[path] = stack.enter_context(_staged(path, data))
        path.unlink(missing_ok=True)
        for path, temporary in staged.items():
            os.replace(temporary, path)
        sync_directory(path.parent)


@contextmanager
def _staged(path: Path, data: bytes | memoryview | str) -> Iterator[Path]:
    """A whole file beside `path`, on the disk and locked, which is removed unless it is renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    descriptor, temporary = _locked_temporary(path)
    try:
        with open(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


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
    """SHA-256 of a file's bytes, 64 lower-case hex digits; raises UserError as `reading` does."""
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
