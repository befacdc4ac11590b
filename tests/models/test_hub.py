"""Weights of the Hugging Face Hub, pinned by commit and hash, from its cache."""

import hashlib
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from support.http_server import Site, serve
from support.project import ROOT, run

from bcd.config.load import parse_model
from bcd.errors import UserError
from bcd.files import sha256_file
from bcd.models import build

REVISION = "a" * 40
BODY = b"weights" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()
FETCH = """
import sys
from bcd.errors import UserError
from bcd.models.hub import weights_path
for name in sys.argv[1:]:
    try:
        print(weights_path(name))
    except UserError as error:
        print("refused:", error)
"""
FIELDS = {"backbone": "light", "head": "light", "channels": 8, "widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A hub that is out of reach, with one file in its cache; the file and its name in params."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--somebody--teacher" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    save_file(build(parse_model(FIELDS, "m"), 3).state_dict(), folder / "model.safetensors")
    return f"hub:somebody/teacher@{REVISION}/model.safetensors#sha256={sha256_file(folder / 'model.safetensors')}"


def test_a_pinned_file_is_loaded(cached):
    model = build(parse_model(FIELDS | {"pretrained": cached}, "m"), 3)
    assert model.weights.unfilled == () and cached.rpartition("=")[2] in model.weights.note


def test_a_file_of_another_hash_is_refused(cached):
    changed = cached[:-1] + ("0" if cached[-1] != "0" else "1")
    with pytest.raises(UserError, match=r"model\.safetensors has the sha256 .*as model\.pretrained says"):
        build(parse_model(FIELDS | {"pretrained": changed}, "m"), 3)


def test_what_is_out_of_reach_is_told(cached):
    with pytest.raises(UserError, match="could not be fetched from the Hugging Face Hub; connect once"):
        build(parse_model(FIELDS | {"pretrained": cached.replace("teacher", "other")}, "m"), 3)


@pytest.mark.parametrize("part", [REVISION, "sha256="])
def test_a_file_that_may_change_is_refused_when_params_are_read(cached, part):
    with pytest.raises(UserError, match="is no file of the hub; write hub:OWNER/NAME@REVISION"):
        parse_model(FIELDS | {"pretrained": cached.replace(part, "main")}, "m")


@pytest.fixture
def hub():
    """A server that answers the hub's client as the hub does, with one file at every address."""
    with serve(Site(BODY, headers={"X-Repo-Commit": REVISION})) as site:
        yield site


def named(repository: str, sha256: str = SHA256) -> str:
    return f"hub:somebody/{repository}@{REVISION}/model.safetensors#sha256={sha256}"


def fetched(site: Site, home: Path, *names: str, **env: str) -> list[str]:
    """What the real client makes of each name: a path, or why it is refused."""
    env |= {"HF_ENDPOINT": site.url.removesuffix("/data.zip"), "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = run(sys.executable, "-c", FETCH, *names, cwd=home, **env)
    return [line for line in done.stdout.splitlines() if line.startswith(("/", "refused: "))]


def test_a_file_is_downloaded_once_and_then_needs_no_hub(hub, tmp_path):
    first, second, other = fetched(hub, tmp_path, named("one"), named("one"), named("one", "0" * 64))
    assert first == second and Path(first).read_bytes() == BODY
    assert f"has the sha256 {SHA256[:12]}..., not 000000000000... as model.pretrained says" in other
    seen = len(hub.seen)
    (cached, lacking) = fetched(hub, tmp_path, named("one"), named("two"), HF_HUB_OFFLINE="1")
    assert cached == first and len(hub.seen) == seen
    assert "model.safetensors of somebody/two could not be fetched from the Hugging Face Hub; connect once" in lacking


def test_a_damaged_file_is_fetched_again_once_the_named_one_is_deleted(hub, tmp_path):
    (path,) = fetched(hub, tmp_path, named("one"))
    Path(path).resolve().chmod(0o644)
    Path(path).write_bytes(b"damaged")
    (refused,) = fetched(hub, tmp_path, named("one"))
    Path(refused.removeprefix("refused: ").partition(" has the sha256")[0]).unlink()
    (again,) = fetched(hub, tmp_path, named("one"))
    assert again == path and Path(again).read_bytes() == BODY


def test_a_connection_that_breaks_off_is_taken_up_again(hub, tmp_path):
    hub.cuts = [None, 100, 100]  # the first answer is no file: the client asks for the repository's list of them
    (path,) = fetched(hub, tmp_path, named("one"))
    assert Path(path).read_bytes() == BODY and len(hub.seen) == 4


def test_a_connection_that_always_breaks_off_and_a_refusal_are_told(hub, tmp_path):
    hub.cuts = [100] * 20
    hub.ranges = False
    (broken,) = fetched(hub, tmp_path, named("one"))
    assert broken.startswith(
        "refused: model.safetensors of somebody/one could not be fetched from the Hugging Face Hub;"
    )
    hub.statuses = [403] * 20
    (refused,) = fetched(hub, tmp_path, named("two"))
    assert "Hub (it answered 403); connect once" in refused and "(HF_TOKEN)" in refused
