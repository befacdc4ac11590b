"""Weights of the Hugging Face Hub, pinned by commit and hash, from its cache."""

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from bcd.config.load import parse_model
from bcd.errors import UserError
from bcd.files import sha256_file
from bcd.models import build

REVISION = "a" * 40
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
