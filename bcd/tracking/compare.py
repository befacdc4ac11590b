"""A student beside its teacher and beside the student that was trained without one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

Metrics = Mapping[str, float]


def against_teacher(student: Metrics, none: Metrics, teacher: Metrics, names: Iterable[str]) -> dict[str, float]:
    """Of each metric in `names` the teacher's value, `teacher/<metric>`, and `gap_closed/<metric>`.

    The gap closed is (student - none) / (teacher - none): 0 is the student that was trained without a teacher, 1 the
    teacher, and a metric of which less is better needs no other sign. What is undefined is left out.

    none: metrics of the student of the same seed that was trained without distillation; {} where there is none.
    """
    nan = math.nan
    found = {}
    for name in names:
        own, floor, top = (metrics.get(name, nan) for metrics in (student, none, teacher))
        found[f"teacher/{name}"] = top
        found[f"gap_closed/{name}"] = (own - floor) / (top - floor) if top != floor else nan
    return {name: value for name, value in found.items() if math.isfinite(value)}
