"""Published weights: where they are, and how images have to enter them; known without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

ZOO = ".pkl"  # ending of a file of detectron2's model zoo
# What a dataset has by default, and such files need.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
HUB = "hub:"
_HUB_FILE = re.compile(r"hub:([\w.-]+/[\w.-]+)@([0-9a-f]{40})/([\w./-]+)#sha256=([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class HubFile:
    """A file of the Hugging Face Hub that cannot change: repository, commit, path in it, and the file's SHA-256."""

    repository: str
    revision: str
    path: str
    sha256: str


def hub_file(pretrained: str) -> HubFile:
    """What `hub:OWNER/NAME@REVISION/FILE#sha256=HASH` names; ValueError, in one sentence, for anything else."""
    match = _HUB_FILE.fullmatch(pretrained)
    if match is None or ".." in match[3]:
        raise ValueError(
            f"'{pretrained}' is no file of the hub; write hub:OWNER/NAME@REVISION/FILE#sha256=HASH with the 40 digits "
            "of a commit and the 64 of the file"
        )
    return HubFile(*match.groups())
