"""The colours of a dataset's classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bcd.data.formats import load_format


def palette_of(data_format: str, classes: Sequence[str]) -> np.ndarray:
    """Class colours uint8 (C, 3): the format module's `PALETTE` of its `CLASSES`, else the colour map of PASCAL VOC."""
    module = load_format(data_format)
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
