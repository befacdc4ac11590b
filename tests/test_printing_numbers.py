"""One home for numbers that are printed."""

import pytest

from bcd.printing import number_text, signed


@pytest.mark.parametrize(
    ("value", "std", "text"),
    [(57.2, None, "57.20"), (57.2, 0.3, "57.20 ± 0.30"), (None, None, "n/a"), (float("nan"), None, "n/a")],
)
def test_a_number_is_printed_or_said_to_be_undefined(value, std, text):
    assert number_text(value, std) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.234, "+1.23"), (-1.0, "-1.00"), (-0.001, "0.00"), (None, "n/a"), (float("nan"), "n/a")]
)
def test_a_difference_has_a_sign_unless_it_is_none(value, text):
    assert signed(value) == text
