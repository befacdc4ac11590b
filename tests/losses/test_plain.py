"""Every loss against a plain implementation of its formula."""

import sys
from copy import deepcopy
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from support.project import ROOT

from bcd.losses import TERMS

sys.path.insert(0, str(ROOT / "benchmarks"))
benchmark = import_module("losses")
PLAIN = import_module("plain").PLAIN

CASE = benchmark.Case("", channels=16, size=16, batch=3)
# Where the default options do not suit maps this small.
OPTIONS = {
    "afdcd": {"groups": 4, "pool": 2, "patch": 4},
    "cirkd_memory": {"pixel_memory": 40, "region_memory": 8},
    "reviewkd": {"mid_channels": 8},
}


def test_every_term_has_a_plain_form_but_those_that_are_one():
    assert set(TERMS) - set(PLAIN) == {"mgd", "vid", "holistic"}


@pytest.mark.parametrize(
    ("term", "options"), [*((term, OPTIONS.get(term, {})) for term in PLAIN), ("boundary", {"operator": "residual"})]
)
def test_agrees_with_the_plain_form(term, options):
    step = benchmark.Step(replace(CASE, term=term, options=options), torch.float64)
    twin = deepcopy(step)  # as some losses remember the batch
    (value, gradients), (expected, expected_gradients) = step.ours(), twin.plain()
    assert value > 0 and len(gradients) == len(expected_gradients) >= 1
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert (gradient - wanted).abs().max() <= 1e-9 * wanted.abs().max()
