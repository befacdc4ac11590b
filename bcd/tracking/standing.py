"""Which MLflow run stands for a run of ours today, and which do no longer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bcd.tracking.mlflow_run import LAYOUT
from bcd.tracking.naming import RunName
from bcd.tracking.parents import PARENT

Known = dict[str, dict[str, Any]]  # key -> spec hash -> MLflow run


def known_runs(client: Any, runs: Iterable[Any]) -> Known:
    """Those of `runs` that are one of our runs each, by its key and the hash of its spec. A second one is deleted."""
    found: Known = {}
    for run in runs:
        tags = run.data.tags
        if {"bcd.key", "bcd.store"} <= tags.keys():
            kept = found.setdefault(tags["bcd.key"], {}).setdefault(tags["bcd.store"], run)
            if kept is not run:  # somebody restored it
                client.delete_run(run.info.run_id)
    return found


def remove_older(client: Any, known: Known, today: Mapping[str, str]) -> None:
    """Delete what older versions wrote of the runs of `today` (key -> spec hash), which are then written anew.

    Exported students had MLflow runs of their own once, and are their student's now: these are deleted, too.
    """
    for key, runs in list(known.items()):
        exported = "@" in key.partition("?")[0]  # which stands in no name
        for spec_hash, run in list(runs.items()):
            if exported or (today.get(key) == spec_hash and run.data.tags.get("bcd.layout") != LAYOUT):
                client.delete_run(run.info.run_id)
                del runs[spec_hash]
        if not runs:
            del known[key]


def supersede(client: Any, run: Any) -> None:
    """Mark an MLflow run as one that no longer counts: by a tag, by its name, and outside of any method's seeds."""
    run_id, tags = run.info.run_id, run.data.tags
    if "bcd.superseded" not in tags:
        client.set_tag(run_id, "bcd.superseded", "true")
    if PARENT in tags:
        client.delete_tag(run_id, PARENT)
    _rename(client, run, RunName.of(tags["bcd.key"]).shown_superseded)


def reinstate(client: Any, run: Any) -> None:
    """Take that mark back."""
    if "bcd.superseded" in run.data.tags:
        client.delete_tag(run.info.run_id, "bcd.superseded")
    _rename(client, run, RunName.of(run.data.tags["bcd.key"]).shown)


def _rename(client: Any, run: Any, name: str) -> None:
    if run.info.run_name != name:
        client.update_run(run.info.run_id, name=name)
