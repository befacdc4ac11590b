"""What grouping saves: k methods trained in one job against k jobs of one method each, whole processes.

    python benchmarks/group.py [--suite scenes-semantic] [--steps 100] [--methods 1 2 4 8]

Needs the suite's teacher (`snakemake teachers --config suite=NAME`); works in a temporary folder and leaves the project
as it is. Wall and CPU seconds of the processes, imports and evaluation included, one after the other on one thread
each. The bound is what the sharing of teacher and data alone could reach, (t + k s) / (k (t + s)), with s the time of
a student's step and t the rest of a step, both from the k jobs.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bcd.config.load import load_params
from bcd.config.schema.suites import Suite
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.runs import expand
from bcd.runs.jsonfile import read_as
from bcd.runs.record import Record, RunResult
from bcd.runs.run import Run


def group_of(suite: Suite, count: int) -> tuple[Run, list[Run]]:
    """The teacher and `count` distilled students of the first pair and seed of a suite."""
    runs = [run for run in expand.suite_runs(load_params(), suite).values() if run.teacher]
    first = runs[0].group
    students = [run for run in runs if run.group == first and run.distilled_from]
    if len(students) < count:
        raise UserError(f"--methods {count}: the first table of {suite.name} has {len(students)} distilled methods")
    return students[0].teacher, students[:count]


def project(folder: Path, suite: str, teacher: Run) -> None:
    """A project that holds nothing but the teacher."""
    edge = teacher.file(suite)
    if not edge.exists():
        raise UserError(f"{edge} is missing; run `snakemake teachers --config suite={suite}` first")
    for name in ("params", "data", "bcd"):
        (folder / name).symlink_to(Path(name).resolve())
    entry = Path("results/store") / read_as(RunResult, edge).store
    (folder / edge).parent.mkdir(parents=True)
    shutil.copy(edge, folder / edge)
    shutil.copytree(entry, folder / entry)


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(getattr(after, part) - getattr(before, part) for part in ("ru_utime", "ru_stime"))
    return time.perf_counter() - begin, cpu


def records(folder: Path) -> list[Record]:
    """The records of the students trained since the last call, which are forgotten."""
    found = []
    for path in sorted((folder / "results/store").glob("*/record.json")):
        record = read_as(Record, path)
        if record.spec.training.terms:
            found.append(record)
            shutil.rmtree(path.parent)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="scenes-semantic")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--methods", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    suite = load_suite(options.suite)
    teacher, students = group_of(suite, max(options.methods))
    train = [sys.executable, "-m", "bcd.cli", "train", "--suite", suite.name, "--set", f"recipe.steps={options.steps}"]
    print("| methods | jobs: wall s | group: wall s | ratio | jobs: CPU s | group: CPU s | ratio | bound |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, suite.name, teacher)
        for count in options.methods:
            keys = [run.key for run in students[:count]]
            grouped = seconds([*train, *keys], folder)
            records(folder)
            alone = [seconds([*train, key], folder) for key in keys]
            found = records(folder)
            own = sum(r.step_seconds for r in found) / count
            rest = sum(r.group_seconds / options.steps for r in found) / count - own
            cells = []
            for each, one in zip(zip(*alone, strict=True), grouped, strict=True):
                cells += [f"{sum(each):.1f}", f"{one:.1f}", f"{one / sum(each):.2f}"]
            bound = (rest + count * own) / (count * (rest + own))
            print(f"| {count} | {' | '.join(cells)} | {bound:.2f} |", flush=True)


if __name__ == "__main__":
    main()
