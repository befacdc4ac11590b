"""Types of numbers that have a range, for options of terms and other settings; nothing here imports torch."""

from typing import Annotated

from pydantic import AfterValidator, Field


def require_odd(value: int) -> int:
    """`value`, if it is odd; ValueError otherwise."""
    if value % 2 == 0:
        raise ValueError(f"{value} is even; a window around a pixel needs an odd number")
    return value


Positive = Annotated[float, Field(gt=0)]
"""A temperature, a rate, or what is added to a denominator."""
NonNegative = Annotated[float, Field(ge=0)]
"""A weight, where 0 leaves the part out."""
AtLeastOne = Annotated[float, Field(ge=1)]
"""A power with a finite slope at 0."""
Fraction = Annotated[float, Field(ge=0, le=1)]
"""A share or a probability."""
MOST = 10**9  # no count of ours comes near; larger numbers overflow where they are used
Count = Annotated[int, Field(ge=1, le=MOST)]
"""How many, or the side of a window in pixels."""
Whole = Annotated[int, Field(ge=0, le=MOST)]
"""How many, where 0 has a meaning of its own."""
Width = Annotated[int, Field(ge=1, le=2**16)]
"""Channels of a layer."""
Depth = Annotated[int, Field(ge=1, le=2**10)]
"""Layers in a row."""
Several = Annotated[int, Field(ge=2)]
"""How many parts, where one part would be the whole."""
OddWidth = Annotated[int, Field(ge=3), AfterValidator(require_odd)]
"""The side of a window with a middle pixel and at least one neighbour on each side."""
