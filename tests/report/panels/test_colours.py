"""Colours of classes."""

import numpy as np
import pytest
from support.dataset_layouts import data_use

from bcd.config.schema.masks import Masks
from bcd.data.formats import camvid, scenes
from bcd.data.palette import palette_of
from bcd.report.panels.colours import ERROR_COLOUR, IGNORED_COLOUR


def test_classes_have_distinct_colours_that_are_neither_black_nor_white():
    assert np.array_equal(palette_of(data_use("scenes", list(scenes.CLASSES))), scenes.PALETTE)
    assert np.array_equal(palette_of(data_use("scenes", ["person", "tree"])), scenes.PALETTE[[7, 3]])
    for name, classes in (("scenes", scenes.CLASSES), ("camvid", range(len(camvid.PALETTE))), ("camvid", range(200))):
        colours = set(map(tuple, palette_of(data_use(name, list(map(str, classes)))).tolist()))
        assert len(colours) == len(classes) and not colours & {IGNORED_COLOUR, ERROR_COLOUR}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"128 64 128": "road", "0 0 0": "sky", "9 9 9": "road"}, [[0, 0, 0], [128, 64, 128]]),
        ({1: "road", 0: "sky"}, [[128, 0, 0], [0, 128, 0]]),  # numbers have no colours: PASCAL VOC's
    ],
)
def test_own_masks_of_colours_give_the_colours(values, expected):
    masks = Masks(images="a", masks="b", fractions={"train": 1.0}, values=values)
    assert palette_of(data_use("masks", ["sky", "road"], masks=masks)).tolist() == expected
