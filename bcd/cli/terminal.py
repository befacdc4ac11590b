"""What commands print. Text of files, archives, servers and arguments is shown harmless, in any locale."""

from __future__ import annotations

import io
import logging
import shutil
import sys
import time
import traceback
from types import TracebackType
from typing import TextIO

from bcd.errors import harmless


def put(text: object, file: TextIO | None = None) -> None:
    """Print `text`, to stdout unless `file` is given, without characters that a terminal would act on."""
    print(harmless(str(text)), file=file, flush=True)


def say(text: str) -> None:
    """A line of progress on stderr, with the time."""
    put(f"{time.strftime('%H:%M:%S')} {text}", sys.stderr)


def announce(sentence: str) -> None:
    """A sentence of ours on stderr: why a command ended, or what was done beside it."""
    put(f"bcd: {sentence}", sys.stderr)


class _Log(logging.Handler):
    """Warnings of our own modules, on whatever stderr is now."""

    def emit(self, record: logging.LogRecord) -> None:
        put(self.format(record), sys.stderr)


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    put("".join(traceback.format_exception(kind, error, trace)).rstrip(), sys.stderr)


def columns() -> int:
    """How wide sentences may be: as the terminal, or as COLUMNS says, but no wider than reads well."""
    from bcd.report.render.text import WIDTH

    return max(20, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def prepare() -> None:
    """Make this process print so: log lines and tracebacks, too, and as escapes what its locale cannot write."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logger = logging.getLogger("bcd")
    if not logger.handlers:
        logger.addHandler(_Log())
    sys.excepthook = _hook
