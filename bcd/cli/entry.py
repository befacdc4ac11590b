"""The process around a command: what a signal, a mistake of the user and a fault of ours end it with.

Here no import is slow, so that a signal meets its handler from the first moment on.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys

from bcd.cli.terminal import announce, prepare
from bcd.errors import UserError, harmless
from bcd.files import explained
from bcd.train.signals import Stopped, raise_stopped

# New objects between two looks for garbage. torch's import makes 200 000 that last; with Python's 700 the looks are a
# seventh of what it takes.
OBJECTS_BETWEEN_COLLECTIONS = 50_000
KEPT = "finished work is kept, the same command continues"


def main() -> None:
    """Run a command of `bcd`, and end with its exit status.

    2 for a `UserError`, which is printed as one sentence, and for what the system refuses on a file; 130 after Ctrl-C
    and 143 after SIGTERM, with a sentence that says what is kept. Anything else is our bug and keeps its traceback.
    """
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")  # it would look for some in every package that is installed
    prepare()
    faulthandler.enable()  # a crash in native code says where it happened instead of dying without a word
    for number in (signal.SIGINT, signal.SIGTERM):
        # What was started in the background ignores Ctrl-C, and so must this.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, raise_stopped)
    try:
        status = _run()
    except (UserError, OSError, UnicodeEncodeError) as error:
        sentence = error if isinstance(error, UserError) else explained(error)
        if sentence is None:
            raise
        announce(str(sentence))
        status = 2
    except Stopped as stopped:
        announce(str(stopped) or f"stopped by {stopped.signal.name}; {KEPT}")
        status = stopped.status
    # Else the end of the interpreter looks through all that torch has made, which takes as long as half a second.
    gc.freeze()
    sys.exit(status)


def _run() -> int:
    try:
        from bcd.cli.main import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "bcd":
            raise
        raise UserError(
            f"the command line needs the package {error.name}; say pip install 'bcd[suite]', or `make install` in the "
            "project's folder"
        ) from None
    try:
        # Outside of its standalone mode the library returns the status of `typer.Exit`, and None without one.
        status = app(standalone_mode=False)
    except Exception as error:
        # A usage error, of the library's own copy of click, carries its text and its status.
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or code is None:
            raise
        if isinstance(text := getattr(error, "message", None), str):
            vars(error)["message"] = harmless(text)
        show()
        return int(code)
    return status if isinstance(status, int) else 0
