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


def hub_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises where a file cannot be had, a connection that breaks off among it."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The error of its HTTP library, which another version of it takes from another package.
    return (OSError, HFValidationError, *HfHubHTTPError.__bases__)


def _cached(file: HubFile) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(file.repository, file.path, revision=file.revision))
    except hub_errors() as error:
        raise UserError(
            f"{file.path} of {file.repository} could not be fetched from the Hugging Face Hub{_answer(error)}; connect "
            "once to fill its cache (HF_HOME), mend its name in model.pretrained, log in if it is not public "
            "(HF_TOKEN), or name a local file"
        ) from error
    if (found := sha256_file(path)) != file.sha256:
        # In the cache `path` is a link: without it the client would take the file behind it again.
        raise UserError(
            f"{path.resolve()} has the sha256 {found[:12]}..., not {file.sha256[:12]}... as model.pretrained says; "
            "correct it there if the file is the right one, or delete the file to fetch it again"
        )
    return path


def _answer(error: Exception) -> str:
    """The status that the hub refused with, if it did; a missing file of the cache has that as its cause."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return f" (it answered {response.status_code})" if response is not None else ""
