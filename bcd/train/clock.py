"""What something took: seconds on the wall, and seconds of the processor, which a busy machine changes little."""

from __future__ import annotations

import time
from typing import NamedTuple


class Spent(NamedTuple):
    """Seconds on the wall, and seconds of the processor over all threads of this process."""

    wall: float = 0.0
    cpu: float = 0.0

    def since(self, begin: Spent) -> Spent:
        """From `begin` to this."""
        return Spent(self.wall - begin.wall, self.cpu - begin.cpu)

    def plus(self, more: Spent) -> Spent:
        """Both together."""
        return Spent(self.wall + more.wall, self.cpu + more.cpu)


def now() -> Spent:
    """The two clocks; only differences mean something."""
    return Spent(time.perf_counter(), time.process_time())
