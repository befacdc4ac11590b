"""The seeds of a method as children of one MLflow run, which has their means."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from bcd.runs.spec import digest
from bcd.tracking.mlflow_run import COSTS, LAYOUT, TrackedRun, final_metrics, params
from bcd.tracking.push import log_finals, log_params, set_tags

PARENT = "mlflow.parentRunId"
GROUP = "bcd.mean_of"  # the tag by which the run of a group is found again


@dataclass(frozen=True)
class MeanRun:
    """What the MLflow run of a method says.

    params   what all seeds have in common
    metrics  means over the seeds; `sd/<metric>` is the standard deviation, `seeds` their number
    """

    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def state(self) -> str:
        """Hash of all that it says."""
        return digest(asdict(self) | {"layout": LAYOUT})


def mean_runs(runs: Iterable[TrackedRun]) -> dict[str, MeanRun]:
    """Group -> what its MLflow run says, in the order of `runs`. Teachers belong to no group."""
    groups: dict[str, list[TrackedRun]] = {}
    for tracked in runs:
        if tracked.record and not tracked.name.is_teacher:
            groups.setdefault(tracked.name.group, []).append(tracked)
    return {group: _mean_run(group, seeds) for group, seeds in groups.items()}


def means(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric that every seed has, and its sample standard deviation as `sd/<metric>`.

    There is no deviation of one seed, nor of what a run costs.
    """
    found = {name: fmean(seed[name] for seed in seeds) for name in seeds[0] if all(name in seed for seed in seeds)}
    measured = [name for name in found if name not in COSTS and len(seeds) > 1]
    return found | {f"sd/{name}": stdev(seed[name] for seed in seeds) for name in measured} | {"seeds": len(seeds)}


def push_means(client: Any, experiment: str, runs: Iterable[Any], wanted: Mapping[str, MeanRun]) -> dict[str, str]:
    """Bring the MLflow runs of groups up to `wanted`; returns group -> id of its MLflow run.

    runs: MLflow runs of the experiment. One whose group has no seed left is deleted. So is one that says more than is
    true today, as MLflow takes back no metric and no parameter; a new one takes its place.
    """
    known: dict[str, Any] = {}
    for run in runs:
        if group := run.data.tags.get(GROUP):
            if group not in known and group in wanted and _may_become(run, wanted[group]):
                known[group] = run
            else:
                client.delete_run(run.info.run_id)
    # New ones stand above their seeds and in the order of the tables, as MLflow's list begins with the latest.
    now = round(1000 * time.time())
    return {
        group: _push(client, experiment, known.get(group), group, mean, now - position)
        for position, (group, mean) in enumerate(wanted.items())
    }


def _mean_run(group: str, seeds: Sequence[TrackedRun]) -> MeanRun:
    name, said = seeds[0].name, [params(tracked) for tracked in seeds]
    shared = {k: v for k, v in said[0].items() if k not in ("repetition", "seed") and all(v == p.get(k) for p in said)}
    of = ", ".join(f"s{tracked.name.repetition}" for tracked in seeds)
    note = f"Means over the seeds {of}; `sd/...` are standard deviations over them."
    tables = dict.fromkeys(table for tracked in seeds for table in tracked.tables)
    tags = {"bcd.suite": seeds[0].suite, "bcd.role": "mean", "bcd.tables": ", ".join(tables)}
    tags |= {f"bcd.{k}": v for k, v in name.params.items() if k != "pair"} | {"bcd.models": name.pair}
    metrics = means([final_metrics(tracked, tracked.record) for tracked in seeds if tracked.record])
    return MeanRun(name.mean_of(len(seeds)), shared | {"role": "mean"}, tags | {"mlflow.note.content": note}, metrics)


def _may_become(run: Any, mean: MeanRun) -> bool:
    params, metrics = run.data.params.items(), run.data.metrics.keys()
    same_layout = run.data.tags.get("bcd.layout") == LAYOUT
    return same_layout and params <= mean.params.items() and metrics <= mean.metrics.keys()


def _push(client: Any, experiment: str, run: Any | None, group: str, mean: MeanRun, start: int) -> str:
    if run is None:
        identity = {GROUP: group, "bcd.layout": LAYOUT}
        run = client.create_run(experiment, start_time=start, tags=identity, run_name=mean.name)
    run_id = str(run.info.run_id)
    if run.data.tags.get("bcd.synced") != mean.state:
        if run.info.run_name != mean.name:
            client.update_run(run_id, name=mean.name)
        log_params(client, run_id, {k: v for k, v in mean.params.items() if k not in run.data.params})
        set_tags(client, run, mean.tags)
        log_finals(client, run, mean.metrics)
        took = round(1000 * mean.metrics.get("train_seconds", 0))
        client.set_terminated(run_id, "FINISHED", run.info.start_time + took)
        client.set_tag(run_id, "bcd.synced", mean.state)
    return run_id
