"""The connection to MLflow."""

import pytest

from bcd.tracking.client import connected, tracking_errors


def test_a_folder_that_cannot_be_used_is_one_of_the_errors_that_sync_reports(tmp_path):
    (tmp_path / "mlflow.lock").mkdir()
    with pytest.raises(tracking_errors(), match="cannot write .*mlflow.lock"), connected(tmp_path):
        pass
