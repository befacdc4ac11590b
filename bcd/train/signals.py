"""Stopping a job: a signal asks, and the loop saves before it ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """A signal asked the job to end; every learner was saved."""


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT instead of dying from them; a second Ctrl-C takes effect at once.

    A second SIGTERM does not: Slurm, srun and torchrun each pass on the one that they were sent.
    """
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in received:
            sys.exit(128 + number)
        received.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
