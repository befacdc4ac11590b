"""The colours of a dataset's classes."""

from __future__ import annotations

import numpy as np

from bcd.config.schema.data import Dataset, DataUse
from bcd.data.formats import load_format


def palette_of(data: Dataset | DataUse) -> np.ndarray:
    """Class colours uint8 (C, 3): those that own masks have for the classes, or the format module's `PALETTE` of its
    `CLASSES`; else the colour map of PASCAL VOC."""
    if data.masks and data.masks.colours:
        stored = {name: colour for colour, name in reversed(data.masks.values.items())}  # of several, the first
        return np.array([[int(number) for number in stored[name].split()] for name in data.classes], np.uint8)
    module, classes = load_format(data.format), data.classes
    own = getattr(module, "PALETTE", ())
    names = getattr(module, "CLASSES", tuple(classes) if len(own) >= len(classes) else ())
    if set(classes) <= set(names):
        return np.asarray([own[names.index(name)] for name in classes], np.uint8)
    return _voc_colours(len(classes))


def _voc_colours(count: int) -> np.ndarray:
    """The first colours of VOC's devkit but for its black: it spreads the bits of an id over the three channels."""
    ids = np.arange(1, count + 1)
    channels = [sum(((ids >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
    return np.stack(channels, 1).astype(np.uint8)
