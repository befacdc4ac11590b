"""Losses that stand still: what trains on one learns nothing from it.

A loss that teaches anything differs from batch to batch. One that does not has no gradient left, such as a box
regression whose last ReLU is dead, or it never saw what it is made of, such as boxes. The training ends as any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from bcd.runs.record import Standstill

# Of a loss. Boxes that have grown beyond all bounds move theirs by 0.0002 from batch to batch, and a dead ReLU by
# float32's rounding. The calmest loss of any method moves by 0.05 (docs/reference/tables.md).
TOLERANCE = 1e-3
SHARE = 0.5  # of a training
SHORTEST = 10  # steps

Streaks = dict[str, tuple[float, int]]  # loss -> a value, and the step since which it has had no other


def follow(streaks: Streaks, values: Mapping[str, float], step: int) -> Streaks:
    """The streaks after `step` (1, 2, ...), in which the losses had these finite `values`."""
    return {
        name: streaks[name] if name in streaks and _same(value, streaks[name][0]) else (value, step)
        for name, value in values.items()
    }


def stands_still(streaks: Streaks, steps: int, weightless: Collection[str] = ()) -> dict[str, Standstill]:
    """The losses that a training of `steps` steps has ended with and that have not changed for half of it or more.

    A loss that came down to exactly 0 is none of them: it has nothing left to teach. One that was 0 from the first step
    on is, unless it is one of `weightless`, those that the recipe gives a weight of 0. Half of a training is no less
    than ten steps here, so a shorter one is not judged.
    """
    return {
        name: Standstill(value=value, since=since)
        for name, (value, since) in sorted(streaks.items())
        if steps - since + 1 >= max(SHARE * steps, SHORTEST) and (value or since == 1) and name not in weightless
    }


def sentence(name: str, found: Standstill, steps: int) -> str:
    """What the log says of one."""
    if not found.value:
        return (
            f"the loss {name} was 0 in each of {steps} steps, so nothing was learned from it: it saw nothing to compare"
        )
    return (
        f"the loss {name} stood at {found.value:.4g} from step {found.since} to the last of {steps}, so nothing was "
        "learned from it; a smaller lr, a longer warmup or a smaller clip in params/recipes.yaml may keep it alive"
    )


def _same(value: float, other: float) -> bool:
    return abs(value - other) <= TOLERANCE * abs(other)
