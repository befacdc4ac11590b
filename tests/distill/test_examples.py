"""The examples in the docstrings of what others use run and print what they say."""

import doctest

import pytest

import bcd.losses
from bcd.config import load
from bcd.distill import distiller, taps, terms


@pytest.mark.parametrize(
    "example",
    [bcd.losses.Term, distiller.Distiller, terms.WeightedTerms, taps.observe, taps.Taps, load.load_method],
    ids=lambda example: example.__name__,
)
def test_the_example_runs(example):
    (test,) = doctest.DocTestFinder(recurse=False).find(example, example.__name__, globs={})
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0
