import hashlib
import random
import threading
import time

import pytest
from support.http_server import Site, serve

from bcd.data.acquire.download import download
from bcd.errors import UserError

BODY = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,127.0.0.2,localhost")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "archives" / "data.zip"


def get(site, target, **options):
    return download(site.url, target, **{"attempts": 3, "pause": 0.0} | options)


def test_download_reports_progress_and_leaves_no_part(target):
    calls = []
    with serve(Site(BODY)) as site:
        assert get(site, target, progress=lambda *call: calls.append(call)) == SHA256
    assert target.read_bytes() == BODY
    assert calls[-1] == ("download data.zip", len(BODY), len(BODY))
    assert sorted(path.name for path in target.parent.iterdir()) == ["data.zip", "data.zip.json"]


@pytest.mark.parametrize("pinned", [None, SHA256])
def test_dropped_connections_are_resumed_where_they_stopped(target, pinned):
    with serve(Site(BODY, cuts=[100_000, 50_000])) as site:
        assert get(site, target, sha256=pinned) == SHA256
    assert site.seen == [None, "bytes=100000-", "bytes=150000-"]
    assert target.read_bytes() == BODY


def test_resume_goes_on_in_a_later_call(target):
    with serve(Site(BODY, cuts=[100_000, 0, 0, 0])) as site:
        with pytest.raises(UserError, match="stopped after 100000 bytes.*run the same command again"):
            get(site, target)
        site.cuts.clear()
        assert get(site, target) == SHA256
    assert site.seen[-1] == "bytes=100000-"


def test_progress_renews_the_attempts(target):
    with serve(Site(BODY, cuts=[10_000] * 20)) as site:
        assert get(site, target, attempts=2) == SHA256


def test_server_without_ranges_restarts_cleanly_and_gives_up_in_the_end(target):
    with serve(Site(BODY, ranges=False, cuts=[100_000])) as site:
        assert get(site, target) == SHA256
    assert target.read_bytes() == BODY
    target.unlink()
    with serve(Site(BODY, ranges=False, cuts=[100_000] * 9)) as site, pytest.raises(UserError, match="stopped"):
        get(site, target)


def test_changed_file_is_not_glued_to_the_old_part(target):
    new = BODY[::-1]
    with serve(Site(BODY, cuts=[100_000, 0, 0, 0])) as site:
        with pytest.raises(UserError):
            get(site, target)
        site.body, site.etag, site.cuts = new, '"v2"', []
        get(site, target)
    assert target.read_bytes() == new


def test_without_validator_only_a_pinned_hash_allows_resuming(target):
    with serve(Site(BODY, etag=None, cuts=[100_000])) as site:
        get(site, target)
    assert site.seen == [None, None]
    target.unlink()
    with serve(Site(BODY, etag=None, cuts=[100_000])) as site:
        get(site, target, sha256=SHA256)
    assert site.seen == [None, "bytes=100000-"]


def test_part_that_was_complete_is_finished(target):
    with serve(Site(BODY)) as site:
        get(site, target)
        target.rename(target.with_name("data.zip.part"))
        assert get(site, target) == SHA256
    assert site.seen == [None, f"bytes={len(BODY)}-"]


def test_finished_download_is_reused_unless_it_was_damaged(target):
    with serve(Site(BODY)) as site:
        get(site, target)
        get(site, target)
        assert len(site.seen) == 1
        target.write_bytes(BODY[:-1] + b"x")
        assert get(site, target) == SHA256
    assert target.read_bytes() == BODY


def test_wrong_hash_is_refused_and_does_not_stay(target):
    with serve(Site(BODY)) as site, pytest.raises(UserError, match=f"sha256 {SHA256}, expected .*{'0' * 64}"):
        get(site, target, sha256="0" * 64)
    assert not target.exists()
    assert not target.with_name("data.zip.part").exists()


def test_wrong_announced_size_is_refused_before_the_transfer(target):
    with serve(Site(BODY)) as site, pytest.raises(UserError, match="300000 bytes where params pin 5"):
        get(site, target, size=5)
    assert target.with_name("data.zip.part").stat().st_size == 0


def test_endless_body_stops_at_the_pinned_size(target):
    with serve(Site(BODY, length=False)) as site, pytest.raises(UserError, match="expected 1000 bytes"):
        get(site, target, size=1000, sha256=SHA256)


def test_client_errors_are_final_and_server_errors_are_retried(target):
    with serve(Site(BODY, statuses=[404])) as site, pytest.raises(UserError, match="answered 404"):
        get(site, target)
    assert len(site.seen) == 1
    with serve(Site(BODY, statuses=[503, 429])) as site:
        assert get(site, target) == SHA256


@pytest.mark.parametrize("url", ["ftp://host/x.zip", "no url", "http://"])
def test_unusable_url_is_final(url, target):
    with pytest.raises(UserError, match="check the URL"):
        download(url, target, pause=0.0)


def test_nobody_listening(target):
    with serve(Site(BODY)) as site:
        pass
    with pytest.raises(UserError, match="check the connection"):
        get(site, target)


@pytest.mark.parametrize("pinned", [False, True])
def test_the_rest_of_another_version_is_not_appended(target, pinned):
    """The server sends the rest of a new file in spite of If-Range: only its ETag says that it is another one."""
    new = BODY[::-1]
    with serve(Site(BODY, conditions=False, cuts=[100_000])) as site:
        with pytest.raises(UserError, match="check the connection"):
            get(site, target, attempts=1, sha256=hashlib.sha256(new).hexdigest() if pinned else None)
        site.body, site.etag = new, '"v2"'
        assert get(site, target) == hashlib.sha256(new).hexdigest()
    assert target.read_bytes() == new


def test_another_size_is_another_version(target):
    with serve(Site(BODY, conditions=False, cuts=[100_000])) as site:
        with pytest.raises(UserError, match="check the connection"):
            get(site, target, attempts=1)
        site.body = BODY[::-1] + b"more"
        get(site, target)
    assert target.read_bytes() == BODY[::-1] + b"more"


def test_another_host_is_named(target, caplog):
    with serve(Site(BODY)) as site, serve(Site(b"", target=site.url.replace("127.0.0.1", "localhost"))) as asked:
        assert get(asked, target) == SHA256
    assert f"{asked.url} is sent by another host: localhost" in caplog.text


def test_plain_http_needs_a_hash_wherever_it_leads(target, caplog):
    """127.0.0.2 stands for a host elsewhere."""
    with serve(Site(BODY), "127.0.0.2") as site, serve(Site(b"", target=site.url)) as asked:
        with pytest.raises(UserError, match="leads over plain http to 127.0.0.2, .* pin its sha256"):
            get(asked, target)
        assert get(asked, target, sha256=SHA256) == SHA256
        target.unlink()
        assert get(asked, target, pinned=True) == SHA256


def test_bytes_that_trickle_are_kept_and_shown(target):
    gate, shown = threading.Event(), []
    with serve(Site(BODY, gate=gate)) as site:
        client = threading.Thread(target=lambda: get(site, target, progress=lambda what, *at: shown.append(at)))
        client.start()
        part = target.with_name("data.zip.part")
        while client.is_alive() and not (part.exists() and part.stat().st_size == 100):
            time.sleep(0.01)
        kept = part.read_bytes()
        gate.set()
        client.join()
    assert kept == BODY[:100] and (100, len(BODY)) in shown
    assert target.read_bytes() == BODY


def test_a_silent_server_is_waited_for_in_words(target, caplog):
    with serve(Site(BODY, silence=0.5)) as site:
        assert get(site, target, patience=0.05) == SHA256
    assert f"{site.url}: no byte for 0.05 s; waiting" in caplog.text


def test_a_damaged_note_is_no_note(target):
    with serve(Site(BODY, cuts=[100_000])) as site:
        with pytest.raises(UserError, match="check the connection"):
            get(site, target, attempts=1)
        for content in (b"[]", b"\xff\xfe", b""):
            target.with_name("data.zip.json").write_bytes(content)
            assert get(site, target) == SHA256
            target.rename(target.with_name("data.zip.part"))
