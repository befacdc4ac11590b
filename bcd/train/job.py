"""One job of the DAG: train and evaluate what the store does not hold of a group of runs, and write their edges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bcd.data.acquire import manifest
from bcd.errors import UserError
from bcd.files import atomic_write
from bcd.runs import store
from bcd.runs.record import code_fingerprints, run_json
from bcd.runs.run import Run, digest, run_file, spec_of

DATA, RESULTS = Path("data"), Path("results")


def data_facts(run: Run) -> dict[str, Any]:
    """What a record and a caption must say about the run's data."""
    loaded = manifest.load(DATA / run.files)
    return {"manifest_sha256": loaded.sha256, "origin": loaded.origin, "official": loaded.official,
            "note": loaded.note, "licence": loaded.licence}  # fmt: skip


def teacher_facts(suite: str, run: Run) -> dict[str, str] | None:
    """Key, store folder and weights hash of the run's teacher; None for a run without terms."""
    if not run.config["terms"]:
        return None
    path = run_file(suite, run.teacher, RESULTS)
    if not path.exists():
        raise UserError(f"{path} is missing: the teacher of {run.key} is not trained; run `snakemake teachers`")
    edge = store.read_json(path)
    if edge["fingerprint"] != run.teacher.fingerprint:
        raise UserError(f"{path} was made with other parameters; run `snakemake teachers` to train this teacher again")
    return {"key": edge["key"], "store": edge["store"], "weights_sha256": edge["weights_sha256"]}


def resolve(suite: str, run: Run) -> dict[str, Any]:
    """The full spec of a run, once its data and its teacher exist."""
    teacher = teacher_facts(suite, run)
    return spec_of(
        run,
        manifest_sha256=data_facts(run)["manifest_sha256"],
        teacher_weights_sha256=teacher and teacher["weights_sha256"],
    )


def run_group(suite: str, runs: list[Run], say: Callable[[str], None]) -> None:
    """Train, evaluate and write the small JSON of each run. All must belong to one group.

    Raises UserError naming the runs that failed, after the others are finished and written.
    """
    if len({run.group for run in runs}) != 1:
        raise UserError("the keys belong to different groups; they must differ in the method only")
    specs = [resolve(suite, run) for run in runs]
    shared = {digest({k: spec[k] for k in ("data", "recipe", "seed", "model")}) for spec in specs}
    if len(shared) != 1:
        raise UserError("runs of one group must share data, recipe, model and seed; train them one by one")
    from bcd import distributed
    from bcd.tasks import make_task
    from bcd.train import loop

    task = make_task(specs[0], DATA / runs[0].files, in_memory=runs[0].runtime["in_memory"])
    teacher = next((teacher_facts(suite, run) for run in runs if run.config["terms"]), None)
    folder = teacher and RESULTS / "store" / teacher["store"]
    failed = loop.train(specs, task, folder, runs[0].runtime, RESULTS, say)
    rank = distributed.rank()
    distributed.finish()
    if rank != 0:
        return
    for run, spec in zip(runs, specs, strict=True):
        if digest(spec) not in failed:
            evaluate_run(suite, run, spec, task, say)
    if failed:
        names = [f"{r.key}: {failed[digest(s)]}" for r, s in zip(runs, specs, strict=True) if digest(s) in failed]
        raise UserError(
            "; ".join(names) + "; the last good state is kept in results/store; change the method or recipe"
        )


def evaluate_run(suite: str, run: Run, spec: dict, task: Any, say: Callable[[str], None]) -> dict[str, Any]:
    """Evaluate a finished run (or find its evaluation in the store) and write its small JSON."""
    from bcd.train import loop

    folder = store.entry(spec, RESULTS)
    with store.open_entry(spec, RESULTS):
        code = code_fingerprints(run.config)["evaluate"]
        evaluation = loop.evaluate(spec, folder, task, run.evaluation, code, say)
    edge = run_json(run, digest(spec), store.record(folder), evaluation, data_facts(run), teacher_facts(suite, run))
    atomic_write(run_file(suite, run, RESULTS), store.dump(edge))
    return edge


def evaluate_finished(suite: str, run: Run, say: Callable[[str], None]) -> dict[str, float]:
    """Metrics of a finished run, evaluated anew if the store does not hold this evaluation."""
    from bcd.tasks import make_task

    spec = resolve(suite, run)
    if not store.record(store.entry(spec, RESULTS)):
        raise UserError(f"{run.key} is not trained; run `bcd train --suite {suite} {run.key}`")
    task = make_task(spec, DATA / run.files, in_memory=False)
    return evaluate_run(suite, run, spec, task, say)["metrics"]
