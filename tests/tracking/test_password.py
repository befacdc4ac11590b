"""No part of a password is printed, whatever is in it and however an error quotes its address."""

import pytest

from bcd.tracking.client import reason, tracking_uri
from bcd.tracking.password import without_password

PASSWORDS = ["plain-1", "p@ss-word", "pass word", "pa/ss-word", "pass:word", "p%40ss-word", "?pass#word", "pä-ssword"]


@pytest.mark.parametrize("password", PASSWORDS)
def test_no_part_of_a_password_is_shown(monkeypatch, tmp_path, password):
    uri = f"http://someone:{password}@host.example:5000/base"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert without_password(tracking_uri(tmp_path)) == "http://host.example:5000/base"
    cut = uri.partition("/")[2].partition("/")[2]
    for quoted in (
        uri,
        cut,
        cut.rpartition("@")[0],
        uri.replace(" ", "%20"),
        uri.split("@")[-1],
        uri.split("@", 1)[-1],
    ):
        shown = reason(ValueError(f"Failed to parse: {quoted}"))
        for part in [password, *password.replace("%40", "@").replace("/", "@").replace(" ", "@").split("@")]:
            assert len(part) < 3 or part not in shown, shown


@pytest.mark.parametrize("password", ["p@ss-word", "pass word", "pa/ss-word"])
def test_what_the_libraries_say_of_such_an_address(monkeypatch, password):
    """Real errors of the client that MLflow uses."""
    import requests

    uri = f"http://someone:{password}@127.0.0.1:9/api"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(Exception) as error:  # noqa: B017 - which one depends on where the address is cut
        requests.get(uri, timeout=5)
    said = reason(error.value)
    assert not any(part in said for part in ("ss-word", "pass", "word", "pa/ss")), said


def test_addresses_of_others_are_hidden_too(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert without_password("see https://a:b@host/x and http://host/y@z") == "see https://host/x and http://host/y@z"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden-word")
    assert without_password("401: hidden-word") == "401: ***"
