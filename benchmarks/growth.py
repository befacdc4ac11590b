"""How time and memory grow with images and with runs: evaluation, comparison, plan, tables, DAG and tracking.

    python benchmarks/growth.py [--images 100 1000 10000] [--runs 20 200 2000] [--only images|runs]

Every cell is a fresh process on one thread: its CPU seconds (user + system), and its peak memory. The images are drawn.
The runs are finished runs of a suite with ever more seeds, made as the tests make them, without training: records, rows
and weights' hashes are there, and what reads them is the real command. `x` is the growth of time from one size to the
next, of what is over the smallest; where it is above the growth of the input, something is not linear.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SELF = [str(ROOT / "benchmarks/growth.py"), "--measure"]
METHODS = ("none", "kd", "cwd", "bcd")
SUITE = """\
description: Many seeds.
task: semantic
seeds: {seeds}
metrics: [miou, biou, conn]
main_metrics: [miou, biou, conn]
tables:
  - name: growth
    caption: Many seeds.
    pairs:
      - dataset: scenes-smoke
        teacher: smoke-teacher
        teacher_recipe: smoke
        student: smoke-student
        recipe: smoke
    methods: [{methods}]
"""
COMMANDS = {
    "`bcd plan`": ["-m", "bcd.cli", "plan", "--suite", "growth"],
    "`bcd tables`": ["-m", "bcd.cli", "tables", "--suite", "growth"],
    "`snakemake -n`": ["-m", "snakemake", "-n", "--quiet", "--config", "suite=growth"],
    "`bcd track --sync`, all new": ["-m", "bcd.cli", "track", "--suite", "growth", "--sync"],
    "`bcd track --sync`, nothing to do": ["-m", "bcd.cli", "track", "--suite", "growth", "--sync"],
}


def semantic(images: int) -> None:
    """Counts and metrics of images of 96 x 96 with 8 classes."""
    from semantic_metrics import drawn

    from bcd.metrics import image_counts, stack, summarise

    pred, label = drawn((96, 96), 8)
    summarise(stack([image_counts(np.roll(pred, n, 1), np.roll(label, n, 1), classes=8) for n in range(images)]))


def boxes(images: int) -> None:
    """Box AP of 7 objects and 35 detections an image."""
    from contenders import ap_ours, drawn

    ap_ours("box", *drawn(images, masks=False))()


def bootstrap_semantic(images: int) -> None:
    """One comparison of two methods with five seeds: 2000 replicates."""
    from bcd.report.stats import compare

    rng = np.random.default_rng(0)
    rows = [{f"miou.{part}": rng.integers(1, 100, (images, 19)) for part in ("num", "den")} | {} for _ in range(10)]
    compare(rows[:5], rows[5:])


def bootstrap_boxes(images: int) -> None:
    """The same of box AP, one seed, 200 replicates."""
    from contenders import drawn

    from bcd.metrics import detection_rows, summariser
    from bcd.report.stats import compare

    truth, results = drawn(images, masks=False)
    ids = [image["id"] for image in truth["images"]]
    rows = [detection_rows(truth, results[start:], ids, ["box"]) for start in (0, 1)]
    compare(*([each] for each in rows), metrics=["ap"], replicates=200, summarise=summariser("detection", ["ap"]))


MEASURED: dict[str, Callable[[int], None]] = {
    "semantic metrics": semantic,
    "box AP": boxes,
    "bootstrap of mIoU": bootstrap_semantic,
    "bootstrap of box AP": bootstrap_boxes,
}


def cost(command: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds and peak MiB of a process; with Snakemake's, of its largest."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([sys.executable, *command], cwd=folder, env=env, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode()}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def project(folder: Path, runs: int) -> None:
    """Make a project whose suite `growth` has that many finished runs and their teacher."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.project import copy_project
    from support.suite_results import finish_suite

    copy_project(folder)
    (folder / "bcd").symlink_to(ROOT / "bcd")
    seeds = runs // len(METHODS)
    (folder / "params/suites/growth.yaml").write_text(SUITE.format(seeds=seeds, methods=", ".join(METHODS)))
    cost(["-m", "bcd.cli", "fetch", "scenes-smoke"], folder)
    os.chdir(folder)
    finish_suite(folder, "growth")


def row(name: str, costs: list[tuple[float, float]]) -> str:
    cells = [f"{seconds:.1f} s, {mib:.0f} MiB" for seconds, mib in costs]
    more = [b[0] - a[0] for a, b in zip(costs[:-1], costs[1:], strict=True)]
    growth = [f"{b / a:.1f}" if a > 0.1 else "-" for a, b in zip(more[:-1], more[1:], strict=True)]
    return f"| {name} | {' | '.join(cells)} | {', '.join(growth)} |"


def head(what: str, sizes: list[int]) -> str:
    return f"\n| {what} | {' | '.join(map(str, sizes))} | x |\n|---|{'---:|' * (len(sizes) + 1)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--runs", type=int, nargs="+", default=[20, 200, 2000], help="multiples of four")
    parser.add_argument("--only", choices=["images", "runs"])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, size = options.measure
        MEASURED[name](int(size)) if name in MEASURED else project(Path(name), int(size))
        return
    if options.only != "runs":
        print(head("images", options.images), flush=True)
        for name in MEASURED:
            print(row(name, [cost([*SELF, name, str(images)], ROOT) for images in options.images]), flush=True)
    if options.only != "images":
        with tempfile.TemporaryDirectory() as temporary:
            folders = [Path(temporary) / str(runs) for runs in options.runs]
            for folder, runs in zip(folders, options.runs, strict=True):
                # In a process of its own: the peak of a child is at least what its parent held when it was started.
                cost([*SELF, str(folder), str(runs)], ROOT)
            print(head("runs", options.runs), flush=True)
            for name, command in COMMANDS.items():
                print(row(name, [cost(command, folder) for folder in folders]), flush=True)


if __name__ == "__main__":
    main()
