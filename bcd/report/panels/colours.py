"""The colours of what is marked in pictures; those of classes are in `bcd.data.palette`."""

from __future__ import annotations

Colour = tuple[int, ...]  # red, green, blue
Mark = tuple[str, Colour]  # a name in the legend and its colour

IGNORED_COLOUR = (0, 0, 0)
ERROR_COLOUR = (255, 255, 255)
