"""What the Snakefile does beside naming rules: outputs that are not today's are made again, a dead lock is freed."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bcd.cli.terminal import announce, put
from bcd.errors import UserError, counted
from bcd.planning.cost import duration
from bcd.planning.remaining import Job, job
from bcd.runs.jsonfile import read_as
from bcd.runs.record import Record, RunResult
from bcd.runs.run import Run
from bcd.runs.spec import RESULTS
from bcd.runs.status import judge_all

LOCKS = Path(".snakemake/locks")
NAMED = 3  # outputs that a message lists before it only counts the rest
held: list[Any] = []  # files whose locks last as long as the process


def is_main(workflow: Any) -> bool:
    """Whether this is the Snakemake that was called, and not one that it has started for a job of its own."""
    return workflow.exec_mode.name == "DEFAULT"


def make_again(workflow: Any, wrong: Mapping[Path, str]) -> list[str]:
    """Have Snakemake make these outputs again, as far as the call needs them, and say so; for an input function.

    Input functions are called while the DAG is built and before it is decided which jobs have to run. No inputs are
    returned.
    """
    forced = workflow.dag.forcefiles
    new = {path: why for path, why in wrong.items() if path.as_posix() not in forced}
    if new:
        forced.update(path.as_posix() for path in new)
        shown = [f"{path} ({why})" for path, why in list(new.items())[:NAMED]]
        more = [f"{len(new) - NAMED} more"] if len(new) > NAMED else []
        announce(f"not today's: {', '.join([*shown, *more])}; made again, as far as this call needs it")
    return []


def jobs_to_do(suite: str, groups: Mapping[str, list[Run]], outputs: Collection[str]) -> dict[str, Job]:
    """The training jobs by address that make any of these outputs, with the steps that are left of them."""
    wanted = {a: runs for a, runs in groups.items() if any(str(run.file(suite)) in outputs for run in runs)}
    statuses = judge_all(suite, (run for runs in wanted.values() for run in runs))
    jobs = {}
    for address, runs in wanted.items():
        threads = runs[0].training.recipe.threads * max(1, runs[0].runtime.gpus)
        jobs[address] = job((statuses[run.key] for run in runs), threads)
    return jobs


def say_doubts(suite: str, runs: Iterable[Run]) -> None:
    """Print what the captions warn of in the data of a suite's finished runs, each sentence once."""
    files = {run.file(suite): run.files for run in runs}
    results = {file: read_as(RunResult, file) for file in files if file.exists()}
    for doubt in dict.fromkeys(f"data/{files[f]}: {w}" for f, result in results.items() for w in result.data.warnings):
        announce(f"warning: {doubt}")


def say_end(suite: str, runs: Iterable[Run], since: float) -> None:
    """Print how long a build took that began then (seconds since the epoch), and what of its runs was there before."""
    stores = {read_as(RunResult, file).store for file in (run.file(suite) for run in runs) if file.exists()}
    records = [read_as(Record, RESULTS / "store" / store / "record.json") for store in sorted(stores)]
    old = [record for record in records if datetime.fromisoformat(record.finished).timestamp() < since]
    kept = f", {len(old)} reused, whose training took {duration(sum(r.train_seconds for r in old))}" if old else ""
    made = len(records) - len(old)
    new = f"{counted(made, 'training')} new" if made else "no training in this call"
    announce(f"suite {suite}: {new}{kept}; this build took {duration(round(time.time() - since))}")


def repeat_failures(logs: Path, since: float) -> None:
    """Print the sentence of each job that has failed since then (seconds since the epoch), with its log."""
    for path in sorted(logs.rglob("*.log")):
        last = _lines(path)[-1:] if path.stat().st_mtime >= since else []
        if last and last[0].startswith("bcd: "):
            put(f"{path}: {last[0].removeprefix('bcd: ')}", sys.stderr)


def say_log(path: Path) -> None:
    """Print what a job has said that did not fail."""
    if path.exists():
        announce(" ".join(_lines(path)))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def free_dead_lock(workflow: Any) -> None:
    """Remove the lock of a Snakemake that was killed, as soon as no other one lives in this folder; and say so.

    Snakemake's lock does not die with its process. One of ours does, so whoever gets it is alone. Raises UserError for
    a folder in which nothing can be written, where Snakemake would end in a traceback.
    """
    if not is_main(workflow):
        return
    folder = LOCKS.parent if LOCKS.parent.exists() else Path()
    if not os.access(folder, os.W_OK):
        raise UserError(
            f"cannot write {folder.resolve()}, where Snakemake keeps its notes; mend its permissions, or look at what "
            "is there with `bcd plan` and `bcd tables --show`"
        )
    if not LOCKS.parent.exists():
        return
    try:
        mine = (LOCKS.parent / "bcd.lock").open("wb")
        held.append(mine)
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another one lives, or no lock can be had in this folder: then `snakemake --unlock` is the way
        return
    if dead := list(LOCKS.glob("*.lock")):
        for path in dead:
            path.unlink()
        announce("an earlier snakemake was killed; its lock is removed and its work goes on")
