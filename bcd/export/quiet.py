"""Toolchains talk to their own developers while they work; a user of ours needs none of it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, progress bars on standard output and log records below ERROR off the terminal.

    Whether a toolchain was right is what the comparison with PyTorch shows (`bcd.export.parity`).
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
