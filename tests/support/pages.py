"""The page of the finished suite `smoke`, whose clearest rows are marked."""

import pytest
from support import tables as measured
from support.suite_results import copied, load

from bcd.report import tables
from bcd.report.page.page import build


@pytest.fixture(scope="session", name="paged")
def paged_fixture(tmp_path_factory, finished):
    """A project with tables and a page; not to be changed."""
    root = copied(finished, tmp_path_factory.mktemp("paged") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        measured.finish_clearly(root)
        params, suite = load()
        for table in suite.tables:
            tables.build(params, suite, table.name, figure=False)
        build(params, suite)
    return root
