"""The finished project is made once for all tests of tables, figures and panels; each test gets a copy of it."""

from support.suite_results import finished_fixture, project_fixture  # noqa: F401
