"""What a file costs beside PyTorch: both take turns on one image in one process, so what slows one slows the other.

Time is that of the processor. With one thread it is what a user waits for on an idle machine, and it stays what it is
while other jobs want the same core.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import numpy as np
import torch

from bcd.export.formats import Call
from bcd.export.graph import Graph
from bcd.export.runtime import Opened, torch_call
from bcd.runs.record import Latency

WARM_UP, ROUNDS = 3, 20


def seconds(calls: Mapping[str, Call], image: np.ndarray, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds of the processor that each call takes in each round, in which all take their turn.

    image: an input float32 (N, 3, H, W).
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(WARM_UP + rounds):
        for name, call in calls.items():
            start = time.process_time()
            call(image)
            if number >= WARM_UP:
                found[name].append(time.process_time() - start)
    return found


def beside(own: list[float], others: list[float]) -> tuple[float, float, float]:
    """The ratio of two calls' times, round by round: its lower quartile, its median and its upper quartile."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(own, others, strict=True)], n=4)
    return low, middle, high


def beside_pytorch(opened: Opened, graph: Graph, image: np.ndarray) -> Latency:
    """A file's time for an input float32 (1, 3, H, W) as a ratio to that of PyTorch eager with one thread.

    opened: with one thread, too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = seconds({"file": opened.call, "pytorch": torch_call(graph.module)}, image)
    finally:
        torch.set_num_threads(threads)
    low, ratio, high = beside(times["file"], times["pytorch"])
    return Latency(
        ratio=round(ratio, 4), low=round(low, 4), high=round(high, 4), rounds=ROUNDS,
        pytorch_seconds=round(statistics.median(times["pytorch"]), 6),
    )  # fmt: skip
