"""Colours of classes."""

import numpy as np

from bcd.data.formats import camvid, scenes
from bcd.data.palette import palette_of
from bcd.report.panels.colours import ERROR_COLOUR, IGNORED_COLOUR


def test_classes_have_distinct_colours_that_are_neither_black_nor_white():
    assert np.array_equal(palette_of("scenes", scenes.CLASSES), scenes.PALETTE)
    assert np.array_equal(palette_of("scenes", ["person", "tree"]), scenes.PALETTE[[7, 3]])
    for name, classes in (("scenes", scenes.CLASSES), ("camvid", range(len(camvid.PALETTE))), ("camvid", range(200))):
        colours = set(map(tuple, palette_of(name, classes).tolist()))
        assert len(colours) == len(classes) and not colours & {IGNORED_COLOUR, ERROR_COLOUR}
