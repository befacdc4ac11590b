"""Where a weights file lies: at a path, or in the cache of the Hugging Face Hub, pinned by commit and hash."""

from __future__ import annotations

from pathlib import Path

from bcd.config.zoo import HUB, HubFile, hub_file
from bcd.errors import UserError
from bcd.files import sha256_file


def weights_path(pretrained: str) -> Path:
    """The file that `pretrained` names; one of the hub is downloaded once, to the hub's cache (HF_HOME).

    Raises UserError where it cannot be had, or has another hash than was pinned.
    """
    return _cached(hub_file(pretrained)) if pretrained.startswith(HUB) else Path(pretrained)


def _cached(file: HubFile) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        path = Path(hf_hub_download(file.repository, file.path, revision=file.revision))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(
            f"{file.path} of {file.repository} could not be fetched from the Hugging Face Hub; connect once to fill "
            "its cache (HF_HOME), mend its name in model.pretrained, or name a local file"
        ) from error
    if (found := sha256_file(path)) != file.sha256:
        raise UserError(
            f"{path} has the sha256 {found[:12]}..., not {file.sha256[:12]}... as model.pretrained says; correct it "
            "there if the file is the right one, or delete the file to fetch it again"
        )
    return path
