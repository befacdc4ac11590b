"""The finished runs that a table, a figure or a panel is made of, checked against today's params, data and code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bcd.data.acquire.manifest import MANIFEST
from bcd.errors import UserError
from bcd.files import sha256_file
from bcd.metrics import load_rows
from bcd.runs import store
from bcd.runs.record import code_fingerprints
from bcd.runs.run import Run, run_file

NAMED = 10  # keys that a message lists before it only counts the rest


@dataclass(frozen=True)
class Finished:
    """A run, its small JSON (`bcd.runs.record.run_json`), and where the store keeps it.

    stale: the code that trained or evaluated it has changed since.
    """

    run: Run
    file: Path
    edge: dict[str, Any]
    folder: Path
    stale: bool

    @property
    def rows_file(self) -> Path:
        return self.folder / f"eval-{self.edge['evaluation']['hash']}.npz"

    @property
    def predictions_file(self) -> Path:
        return self.folder / f"eval-{self.edge['evaluation']['hash']}-predictions.npz"


def find_runs(
    suite: str, runs: Iterable[Run], results: Path, data: Path
) -> tuple[dict[str, Finished], dict[str, list[str]]]:
    """The given runs and their teachers: those that fit today's parameters, teachers and data, and what is wrong.

    results, data: the folders `results` and `data` of the project. Returns the usable runs by key, and, for the others,
    reason -> keys; one of the reasons is that the run's small JSON is missing.
    """
    wanted = {run.key: run for run in runs}
    wanted = {run.teacher.key: run.teacher for run in wanted.values() if run.teacher} | wanted
    edges = {key: _edge(run_file(suite, run, results)) for key, run in wanted.items()}
    manifests = {files: _manifest_sha256(data / files) for files in {run.files for run in wanted.values()}}
    found: dict[str, Finished] = {}
    unusable: dict[str, list[str]] = {}
    for key, run in wanted.items():
        edge, teacher = edges[key], edges[run.teacher.key] if run.teacher else None
        if why := _mismatch(run, edge, teacher, manifests[run.files]):
            unusable.setdefault(why, []).append(key)
            continue
        folder, stale = results / "store" / edge["store"], edge["code"] != code_fingerprints(run.config)
        found[key] = Finished(run, run_file(suite, run, results), edge, folder, stale)
    return found, unusable


def refusal(suite: str, unusable: dict[str, list[str]]) -> str:
    """What is wrong with the runs of a suite and how to mend it, from the reasons of `find_runs`."""
    reasons = "; ".join(f"{why}: {_listed(keys)}" for why, keys in sorted(unusable.items()))
    return f"suite '{suite}': {reasons}; run `snakemake --config suite={suite}` to make them"


def read_runs(suite: str, runs: Iterable[Run], results: Path, data: Path) -> dict[str, Finished]:
    """The given runs and their teachers by key.

    Raises UserError naming every run whose small JSON is missing, or was made from other parameters, another teacher or
    other data than today's.
    """
    found, unusable = find_runs(suite, runs, results, data)
    if unusable:
        raise UserError(refusal(suite, unusable))
    return found


def read_rows(finished: Finished) -> dict[str, np.ndarray]:
    """Per-image counts `{name: (I, C)}` of the run; raises UserError unless they are the bytes that were recorded."""
    path = finished.rows_file
    if not path.exists() or sha256_file(path) != finished.edge["evaluation"]["rows_sha256"]:
        raise UserError(
            f"{path} is missing or changed since {finished.run.key} was evaluated; delete {path.with_suffix('.json')} "
            f"and {finished.file}, then run `snakemake` to evaluate it again"
        )
    return load_rows(path)[0]


def _edge(path: Path) -> dict[str, Any] | None:
    return store.read_json(path) if path.exists() else None


def _manifest_sha256(folder: Path) -> str | None:
    """None where the data is not here: tables can be made from results alone."""
    path = folder / MANIFEST
    return sha256_file(path) if path.exists() else None


def _mismatch(run: Run, edge: dict | None, teacher: dict | None, manifest_sha256: str | None) -> str | None:
    if edge is None:
        return "runs are missing"
    if edge["fingerprint"] != run.fingerprint:
        return "runs were made with other parameters"
    if edge["teacher"] and not teacher:
        return "runs have no teacher here to be checked against"
    if edge["teacher"] and edge["teacher"]["weights_sha256"] != teacher["weights_sha256"]:
        return "runs were distilled from another teacher than today's"
    if manifest_sha256 and edge["data"]["manifest_sha256"] != manifest_sha256:
        return f"runs were made with other data than data/{run.files}"
    return None


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more
