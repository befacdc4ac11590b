"""A finished project of the suite `smoke` whose runs are in MLflow."""

import pytest
from support.suite_results import copied, finished_fixture, load  # noqa: F401

from bcd.runs.expand import suite_runs
from bcd.tracking import sync


@pytest.fixture(scope="module")
def synced(tmp_path_factory, finished):
    """A finished project that was synced once; making MLflow's database takes seconds."""
    root = copied(finished, tmp_path_factory.mktemp("synced") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        report = sync.sync(*load())
        assert report.error is None and report.written == report.runs == len(suite_runs(*load()))
    return root


@pytest.fixture
def project(tmp_path, synced, monkeypatch):
    monkeypatch.chdir(copied(synced, tmp_path / "project"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "project"
