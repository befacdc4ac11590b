"""Resumable HTTP download of one file.

`<target>.part` holds the bytes so far and survives any kill. `<target>.json` says which URL and which version of the
file (ETag or Last-Modified) they are bytes of. Once the file is finished, it has the hash, too.
Ranges and validators follow RFC 9110 (13.1.5 If-Range, 14 Range requests).
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from bcd.config.schema.data import plain_http
from bcd.errors import UserError
from bcd.files import atomic_write, read_bytes, require_space, sha256_file, sync_directory, writing

Progress = Callable[[str, int, int | None], None]
"""Called with (what is being done, bytes done, bytes in all or None when unknown)."""

CHUNK = 1 << 18
TIMEOUT = (15, 60)  # seconds to connect; seconds without a byte
LONGEST_PAUSE = 30.0  # seconds
PATIENCE = 10.0  # seconds of silence before the user hears that a server is waited for
MARKS = ("ETag", "Last-Modified")  # by which two versions of a file are told apart
TRANSIENT = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
)
log = logging.getLogger(__name__)


class Dropped(Exception):
    """The transfer stopped for a reason that may pass."""


def quiet(what: str, done: int, total: int | None) -> None:
    """A Progress that says nothing."""


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    pinned: bool = False,
    progress: Progress = quiet,
    attempts: int = 6,
    pause: float = 1.0,
    patience: float = PATIENCE,
) -> str:
    """Bring the file at `url` to `target` and return its SHA-256; a finished download is reused.

    size (bytes) and sha256 are verified when given; pinned says that the caller verifies another hash. After
    `attempts` transfers in a row that brought nothing new, with pauses of `pause`, 2 `pause`, ... seconds between them,
    it gives up. Another host that the server points to, and `patience` seconds without a byte, are logged as warnings.

    Raises UserError when the server refuses or points to plain http without a hash being known, the connection keeps
    failing, the bytes are wrong, or the disk is full.
    """
    pinned = pinned or sha256 is not None
    if (found := _finished(url, target, size, sha256)) is not None:
        return found
    part = _part(target)
    with writing(part):
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    furthest, fruitless = part.stat().st_size, 0
    while True:
        try:
            with _watched(url, part, patience):
                _transfer(url, target, size, pinned, progress)
            break
        except (Dropped, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            _raise_final(url, error)
            reached = part.stat().st_size
            fruitless = 1 if reached > furthest else fruitless + 1
            furthest = max(furthest, reached)
            if fruitless >= attempts:
                raise UserError(
                    f"download of {url} stopped after {reached} bytes ({error}); check the connection and "
                    "run the same command again, it goes on from there"
                ) from error
            wait = min(pause * 2 ** (fruitless - 1), LONGEST_PAUSE)
            log.warning("%s: %s; trying again in %g s", url, error, wait)
            time.sleep(wait)
    return _finish(url, target, size, sha256)


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _note(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _read_note(url: str, target: Path) -> dict:
    """What is known about the bytes of `target`; empty when nothing, or when they came from another URL."""
    try:
        note = json.loads(read_bytes(_note(target)))
    except (UserError, ValueError):
        return {}
    return note if isinstance(note, dict) and note.get("url") == url else {}


@contextmanager
def _watched(url: str, part: Path, patience: float) -> Iterator[None]:
    """Say every `patience` seconds without a byte that the server is waited for."""
    ended = threading.Event()

    def watch() -> None:
        before, silent = _size(part), 0.0
        while not ended.wait(patience):
            now = _size(part)
            silent = silent + patience if now == before else 0.0
            if silent:
                log.warning("%s: no byte for %g s; waiting", url, silent)
            before = now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _finished(url: str, target: Path, size: int | None, sha256: str | None) -> str | None:
    """SHA-256 of a finished earlier download of the same bytes, else None."""
    expected = sha256 or _read_note(url, target).get("sha256")
    if expected is None or not target.is_file() or size not in (None, target.stat().st_size):
        return None
    return expected if sha256_file(target) == expected else None


def _transfer(url: str, target: Path, size: int | None, pinned: bool, progress: Progress) -> None:
    """One request: appends to the part file, or starts it anew when it cannot be continued."""
    part = _part(target)
    note = _read_note(url, target)
    validator = note.get("validator")
    # Without a validator only a pinned hash can tell that old and new bytes belong together.
    offset = part.stat().st_size if note and (validator or pinned) else 0
    if size is not None and offset == size:
        return
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
    with requests.get(url, stream=True, headers=headers, timeout=TIMEOUT) as response:
        if response.status_code == 416 and offset:
            if response.headers.get("Content-Range") == f"bytes */{offset}":
                return
            _note(target).unlink()
            raise Dropped("the server does not have the rest of the partial file, starting over")
        _check_hosts(url, response, pinned)
        _check_status(url, response)
        offset, total = _extent(response, offset, target)
        if offset and _changed(note, response, total):
            _note(target).unlink()
            raise Dropped("the file there has changed since the first part of it came, starting over")
        if None not in (size, total) and size != total:
            raise UserError(
                f"{url} has {total} bytes where params pin {size}; the file there has changed: "
                "check the URL and the pinned size"
            )
        total = total if size is None else size
        require_space(part.parent, (total or 0) - offset, f"the download of {url}")
        if offset == 0:
            with writing(part):
                part.write_bytes(b"")
            atomic_write(_note(target), json.dumps({"url": url} | _version(response, total)))
        _append(response, part, offset, total, progress)


def _check_status(url: str, response: requests.Response) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status in (408, 425, 429) or status >= 500:
        raise Dropped(f"the server answered {status} {response.reason}")
    raise UserError(
        f"{url}: the server answered {status} {response.reason}; check the URL in params/datasets.yaml, "
        "or fetch from a mirror with --mirror"
    )


def _extent(response: requests.Response, offset: int, target: Path) -> tuple[int, int | None]:
    """Offset of the body's first byte and size of the whole file (None when the server does not say)."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != offset:
        _note(target).unlink(missing_ok=True)
        raise Dropped("the server sent another range than asked for, starting over")
    return offset, None if match[2] == "*" else int(match[2])


def _validator(response: requests.Response) -> str | None:
    """What If-Range may carry: a strong ETag, else Last-Modified."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _version(response: requests.Response, total: int | None) -> dict[str, object]:
    """What is noted of the file's version: what If-Range may carry, its marks, and its size."""
    return {"validator": _validator(response), "size": total} | {mark: response.headers.get(mark) for mark in MARKS}


def _changed(note: dict, response: requests.Response, total: int | None) -> bool:
    """Whether the rest of a file is that of another version: some servers send it in spite of If-Range."""
    found = _version(response, total)
    known = {mark: note.get(mark) for mark in (*MARKS, "size")}
    return any(value is not None and found[mark] not in (None, value) for mark, value in known.items())


def _check_hosts(url: str, response: requests.Response, pinned: bool) -> None:
    """Say which other host sends the file; raise UserError where somebody on the way could have sent it instead."""
    hops = [hop.url for hop in (*response.history, response)]
    if not pinned and (plain := next((hop for hop in hops if plain_http(hop)), None)):
        raise UserError(
            f"{url} leads over plain http to {urlsplit(plain).hostname}, so anybody on the way could send another "
            "file; pin its sha256 in params/datasets.yaml, or fetch from a mirror with --mirror"
        )
    asked, sender = urlsplit(url).hostname, urlsplit(hops[-1]).hostname
    if sender != asked:
        log.warning("%s is sent by another host: %s", url, sender)


def _append(response: requests.Response, part: Path, offset: int, total: int | None, progress: Progress) -> None:
    done = offset
    what = f"download {part.name.removesuffix('.part')}"
    with writing(part), open(part, "ab") as file:
        # The raw stream: a server that labels a .tar.gz "Content-Encoding: gzip" must not get it unpacked here.
        # What has come is taken at once, however little: a slow server's bytes survive a kill, and show.
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            file.write(chunk)
            file.flush()
            done += len(chunk)
            progress(what, done, total)
            if total is not None and done > total:
                break
    if total is not None and done < total:
        raise Dropped(f"the connection closed at byte {done} of {total}")


def _raise_final(url: str, error: Exception) -> None:
    """Raise UserError for a failure that another attempt cannot mend."""
    if isinstance(error, requests.exceptions.SSLError):
        raise UserError(
            f"{url}: no trusted connection ({error}); mend the machine's certificates or clock, or fetch from "
            "a mirror with --mirror"
        ) from error
    if not isinstance(error, (Dropped, *TRANSIENT)):
        raise UserError(f"{url}: {error}; check the URL in params/datasets.yaml") from error


def _finish(url: str, target: Path, size: int | None, sha256: str | None) -> str:
    """Verify the part file, record its hash, and give it its name."""
    part = _part(target)
    found, found_size = sha256_file(part), part.stat().st_size
    if size not in (None, found_size) or sha256 not in (None, found):
        part.unlink()
        raise UserError(
            f"{url} gave {found_size} bytes with sha256 {found}, expected "
            f"{'any size' if size is None else f'{size} bytes'} with sha256 {sha256 or 'any'}; run the same "
            "command again, and if it repeats, check the URL and the pinned values in params/datasets.yaml"
        )
    note = _read_note(url, target)
    atomic_write(_note(target), json.dumps({"url": url, **note, "sha256": found}))
    part.replace(target)
    sync_directory(target.parent)
    return found
