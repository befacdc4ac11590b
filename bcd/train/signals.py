"""Stopping: a signal ends a command at once, and a training once it has saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stopped(BaseException):
    """A signal asked the program to end. As with KeyboardInterrupt, nobody who handles errors means it.

    The text says what is kept, or is empty.
    """

    def __init__(self, number: int, text: str = ""):
        super().__init__(text)
        self.signal = signal.Signals(number)

    @property
    def status(self) -> int:
        """What the process exits with, as a shell reports the signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal


def raise_stopped(number: int, _frame: FrameType | None) -> NoReturn:
    """A signal handler."""
    raise Stopped(number)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT, for a loop that saves before it raises `Stopped`; a second Ctrl-C does so at once.

    A second SIGTERM does not: Slurm, srun and torchrun each pass on the one that they were sent.
    """
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in received:
            raise Stopped(number, "stopped at once; what was saved last is kept, the same command continues from there")
        received.append(number)

    # What was started in the background ignores Ctrl-C, and so must this.
    caught = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, remember) for number in caught}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
