"""CPU seconds of commands that do next to nothing: what every job and every look at the results costs.

    python benchmarks/commands.py [--beside CHECKOUT] [--rounds 5]

In a temporary copy of this project that has built the suite `smoke`, which takes some minutes at first:

    torch      a process that imports torch and ends
    train      a training of one step with its evaluation: imports, set-up, first step, record
    plan       `bcd plan` of the finished suite
    sync       `bcd track --sync` with nothing to do
    snakemake  `snakemake` with nothing to do

With `--beside`, each is measured with the code of another checkout as well, and the ratio is given. All run in turn,
round by round, on one thread, and the round with the least CPU time of each counts.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

HERE = Path(__file__).parents[1]
KEY = "semantic/scenes-smoke/smoke-student-from-smoke-teacher/bcd/s0"
BCD = [sys.executable, "-m", "bcd.cli"]
BIN = Path(sys.executable).parent
SNAKEMAKE = [str(BIN / "snakemake")]
NUMBER = count(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="another checkout of this project")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    sources = {"this": HERE} | ({"other": arguments.beside.resolve()} if arguments.beside else {})
    with tempfile.TemporaryDirectory() as scratch:
        projects = {name: built(source, Path(scratch) / name) for name, source in sources.items()}
        best: dict[tuple[str, str], float] = {}
        for _ in range(arguments.rounds):
            for command in calls():
                for name, project in projects.items():
                    spent = cpu_seconds(calls()[command], project)
                    best[command, name] = min(spent, best.get((command, name), spent))
    print("| command | " + " | ".join(f"{name}, CPU s" for name in sources) + " | ratio |")
    print("|---|" + "---:|" * (len(sources) + 1))
    for command in calls():
        mine, others = best[command, "this"], [best[command, name] for name in sources]
        ratio = f"{mine / others[-1]:.2f}" if arguments.beside else ""
        print(f"| {command} | " + " | ".join(f"{seconds:.2f}" for seconds in others) + f" | {ratio} |")


def calls() -> dict[str, list[str]]:
    # Another learning rate each time, else the second round would find the run in the store.
    rate = f"recipe.lr={0.001 + next(NUMBER) * 1e-6:.6f}"
    return {
        "torch": [sys.executable, "-c", "import torch"],
        "train": [*BCD, "train", KEY, "--set", "recipe.steps=1", "--set", rate],
        "plan": [*BCD, "plan"],
        "sync": [*BCD, "track", "--sync"],
        "snakemake": [*SNAKEMAKE, "--quiet", "all"],
    }


def built(source: Path, project: Path) -> Path:
    """A copy of a checkout that has built the suite `smoke`."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=source, capture_output=True, check=True, text=True).stdout
    for file in filter(None, files.split("\0")):
        if (source / file).is_file() or (source / file).is_symlink():
            (project / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / file, project / file, follow_symlinks=False)
    (project / "params/suite.yaml").write_text("suite: smoke\n")
    cpu_seconds(SNAKEMAKE, project)
    return project


def cpu_seconds(call: list[str], project: Path) -> float:
    """User and system time of a command and of all its children."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(project), "PATH": path}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as in the Makefile; else every command compiles all it imports
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(call, cwd=project, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(call)} failed:\n{done.stderr[-3000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
