"""MLFLOW_TRACKING_URI may hold a password, of which no part is shown, however an error quotes the address."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote


def _user() -> str:
    """User and password of MLFLOW_TRACKING_URI, "" without."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").partition("://")[2].rpartition("@")[0]


def without_password(text: str) -> str:
    """Hide the user and password of every address in `text`, and each part of the password of MLFLOW_TRACKING_URI.

    A password may hold any character, so that whoever quotes the address may cut it at the wrong place.
    """
    user = _user()
    text = text.replace(f"://{user}@", "://")
    password = user.partition(":")[2] or user
    for secret in (password, unquote(password), quote(password), os.environ.get("MLFLOW_TRACKING_PASSWORD", "")):
        parts = sorted({secret, *re.split(r"[@/:?#%\s]+", secret)}, key=len, reverse=True)
        for part in parts:
            text = text.replace(part, "***") if len(part) > 2 else text
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def quoted(error: BaseException) -> str:
    """What an error is and says, in one line without a password; only what it is, where its text cannot be trusted.

    With certain signs in a password whoever reads the address cuts it somewhere, and quotes what it took for the host.
    """
    kind = type(error).__name__
    if re.search(r"[\s/@?#]", _user()):
        return f"{kind}: write blanks and / @ ? # before the host of MLFLOW_TRACKING_URI as %20, %2F ..."
    return without_password(" ".join(f"{kind}: {error}".split()))
