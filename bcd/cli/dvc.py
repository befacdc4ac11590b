"""Keeping DVC's view equal to Snakemake's, so that either engine leaves the other nothing to do, on any machine.

What dvc.yaml declares is small. What makes another clone able to go on from it is tracked beside it, in `finished.dvc`,
and only where a remote is configured, since DVC keeps a second copy: data manifests, the store's finished runs, and
what Snakemake remembers of its outputs. Each is tracked by itself and not by its folder: DVC makes a tracked folder
equal to what it was, and would take unfinished runs for litter.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bcd.cli.terminal import announce
from bcd.config.load import default_suite
from bcd.errors import UserError
from bcd.files import atomic_write, read_text
from bcd.runs.jsonfile import read_as
from bcd.runs.record import RunResult
from bcd.runs.spec import RESULTS

FINISHED = Path("finished.dvc")
# What DVC complains of -> what helps.
REMEDIES = {
    "not a git repository": "run `git init`, or `dvc config --local core.no_scm true`, and then `dvc commit -f`",
    "outside of": "DVC cannot carry what a link leads to: put the folder itself here, or do without a remote",
}
PROVENANCE = Path(".snakemake/metadata")


def commit(suite: str) -> None:
    """`dvc commit` the outputs of `suite`, if it is the suite that dvc.yaml is set to and its outputs exist.

    Does nothing inside a stage that DVC itself runs. A failure is reported and not raised: the build was a success.
    """
    if suite != default_suite() or "DVC_STAGE" in os.environ:
        return
    if has_remote():
        outs = [{"path": path.as_posix(), "persist": True} for path in carried(suite)]
        atomic_write(FINISHED, json.dumps({"outs": outs}, indent=1) + "\n")  # JSON is YAML
    announce("telling DVC of the results (dvc.lock)")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "commit", "--force"], capture_output=True, encoding="utf-8", errors="replace",
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        remedy = next((remedy for sign, remedy in REMEDIES.items() if sign in said), "`dvc commit -f` repairs it")
        announce(f"the build is complete, but dvc commit failed: {said}; {remedy}")


def has_remote() -> bool:
    """Whether this project names a DVC remote; one that only the user's own configuration names does not count."""
    files = (Path(".dvc") / name for name in ("config", "config.local"))
    return any("['remote " in read_text(path) for path in files if path.exists())


def carried(suite: str) -> list[Path]:
    """What a remote carries of a suite beyond the outputs in dvc.yaml, relative to the project.

    Raises UserError if the suite is not built.
    """
    data = RESULTS / suite / "data.json"
    if not data.exists():
        raise UserError(f"{data} is missing; run `snakemake` to build the suite")
    edges = (path for part in ("teachers", "runs") for path in (RESULTS / suite / part).rglob("*.json"))
    runs = {RESULTS / "store" / read_as(RunResult, edge).store for edge in edges}
    manifests = {Path(line.split()[1]) for line in read_text(data).splitlines()}
    tables = {path.with_name("files.csv") for path in manifests}
    return sorted(runs) + sorted(manifests | tables) + sorted(_provenance(f"{RESULTS / suite}/", manifests))


def _provenance(folder: str, files: set[Path]) -> Iterator[Path]:
    """Snakemake's notes on the outputs in `folder` and on `files`: the parameters and checksums that they were made
    with. Without them a clone has only times of change to go by, and these are the times of its `dvc pull`.

    A note is named by its output in base 64, cut into `@` folders where that is long.
    """
    for note in PROVENANCE.rglob("*"):
        if note.is_file():
            name = note.relative_to(PROVENANCE).as_posix().replace("@", "").replace("/", "")
            output = base64.b64decode(name, b"_-").decode()
            if output.startswith(folder) or Path(output) in files:
                yield note
