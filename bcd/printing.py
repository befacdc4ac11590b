"""A number as people read it, wherever one is printed: two decimals, and `n/a` where there is no value."""

from __future__ import annotations

import math

UNDEFINED = "n/a"  # a metric without a value, e.g. of classes that no image shows


def number_text(value: float | None, std: float | None = None) -> str:
    """`57.20`, or `57.20 ± 0.30` where there is a deviation; `n/a` for None and NaN."""
    if value is None or math.isnan(value):
        return UNDEFINED
    return f"{value:.2f}" + (f" ± {std:.2f}" if std is not None else "")


def signed(value: float | None) -> str:
    """Two decimals with a sign, but no sign for what rounds to nothing; `n/a` for None and NaN."""
    if value is None or math.isnan(value):
        return UNDEFINED
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text
