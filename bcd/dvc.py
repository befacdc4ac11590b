"""Keeping DVC's view equal to Snakemake's, so that either engine leaves the other nothing to do."""

from __future__ import annotations

import os
import subprocess
import sys

from bcd import config


def commit(suite: str) -> None:
    """`dvc commit` the outputs of `suite`, if it is the suite that dvc.yaml is set to and its outputs exist.

    Does nothing inside a stage that DVC itself runs. A failure is reported and not raised: the build was a success.
    """
    if suite != config.default_suite() or "DVC_STAGE" in os.environ:
        return
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "commit", "--force"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        print(
            f"bcd: dvc commit failed: {(done.stderr or done.stdout).strip()}; `dvc commit -f` repairs it",
            file=sys.stderr,
        )
