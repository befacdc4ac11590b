"""The examples in the docstrings of what others use run and print what they say."""

import doctest

import pytest

import bcd.losses
from bcd.distill import distiller, taps


@pytest.mark.parametrize(
    "example",
    [bcd.losses.Term, distiller.Distiller, distiller.observe, taps.Taps],
    ids=lambda example: example.__name__,
)
def test_the_example_runs(example):
    (test,) = doctest.DocTestFinder(recurse=False).find(example, example.__name__, globs={})
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0
