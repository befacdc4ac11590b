"""The page is made once for all tests that only look at it."""

from support.pages import paged_fixture  # noqa: F401
