"""The examples in the docstrings of the builders run and print what they say."""

import doctest

import pytest

from bcd import models
from bcd.models import detection


@pytest.mark.parametrize("module", [models, detection], ids=lambda module: module.__name__)
def test_the_example_runs(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
