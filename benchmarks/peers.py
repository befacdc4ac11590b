"""The evaluation and the training of this project beside what people would use instead, by one command.

    python benchmarks/peers.py [--quick] [--only box mask boundary semantic training] [--boundary-code FOLDER]

The peers get an environment of their own in the cache folder, at the versions below; they share our PyTorch, and
faster-coco-eval and pycocotools are pinned there as well. Every contender runs in a fresh process on one thread, and
they take turns. CPU seconds are user + system, medians of the rounds; the ratio is ours to theirs, below 1 where ours
is quicker. --boundary-code is a clone of github.com/bowenc0221/boundary-iou-api, which no package index has.

An evaluation is measured from lists of dictionaries (label maps) in memory to its numbers, without imports. A training
takes our light teacher and student, our batches of 8 x 64 x 64 pixels and `kd` in all loops: what differs is the loop.
Ours is the command `bcd train`, with its history, its evaluation and its record. Its cost of a step is the difference
of two lengths of training; the rest is what a job costs besides its steps.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from importlib.metadata import version
from pathlib import Path

PINS = ("torchdistill==1.1.5", "torchmetrics==1.9.0", "lightning-utilities==0.15.3",
        "faster-coco-eval==1.8.0", "pycocotools==2.0.11")  # fmt: skip
HERE = Path(__file__).parent
CONTENDERS = HERE / "contenders.py"
# Of each task: the function of contenders.py behind each name. Ours comes first.
EVALUATIONS = {
    "box": {"ours": "ap_ours.box", "pycocotools": "ap_pycocotools.box", "faster-coco-eval": "ap_faster.box",
            "torchmetrics": "ap_torchmetrics.box"},
    "mask": {"ours": "ap_ours.mask", "pycocotools": "ap_pycocotools.mask", "faster-coco-eval": "ap_faster.mask",
             "torchmetrics": "ap_torchmetrics.mask"},
    "boundary": {"ours": "ap_ours.boundary", "faster-coco-eval": "ap_faster.boundary",
                 "official code": "ap_official_boundary.boundary"},
    "semantic": {"ours, 10 metrics": "semantic_ours", "torchmetrics, mIoU alone": "semantic_torchmetrics"},
}  # fmt: skip
TRAININGS = {"ours": None, "bare loop": "train_bare", "torchdistill": "train_torchdistill"}
IMAGES = {"box": 1000, "mask": 500, "boundary": 100, "semantic": 20}
STEPS = (50, 250)
SUITE = """\
description: One distilled student, for the comparison with other training loops.
task: semantic
seeds: 1
metrics: [miou]
main_metrics: [miou]
tables:
  - name: peers
    caption: One distilled student.
    pairs:
      - dataset: scenes-smoke
        teacher: light-teacher
        teacher_recipe: peers-teacher
        student: light-student
        recipe: scenes-student
    methods: [none, kd]
"""
RECIPE = "\npeers-teacher:\n  <<: *scenes\n  steps: 1\n"
TEACHER, STUDENT = (
    "semantic/scenes-smoke/light-teacher/none/s0",
    "semantic/scenes-smoke/light-student-from-light-teacher/kd/s0",
)


def environment() -> Path:
    """The Python of the peers; made at the first call. It sees our packages behind its own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    folder = cache / f"bcd-peers-{platform.python_version()}-{'-'.join(pin.split('==')[1] for pin in PINS)}"
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        venv.create(folder, clear=True, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", *PINS]
        subprocess.run(install, check=True)
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        ours = sysconfig.get_path("purelib")
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        (folder / "complete").touch()
    return python


def run(command: list, folder: Path, path: list[Path]) -> tuple[float, str]:
    """CPU seconds and output of a process that runs in `folder`."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, path))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def evaluation(task: str, python: Path, options: argparse.Namespace) -> None:
    images = max(2, IMAGES[task] // 50) if options.quick else IMAGES[task]
    path = [HERE.parent, *filter(None, [options.boundary_code])]
    contenders = {
        name: function
        for name, function in EVALUATIONS[task].items()
        if name != "official code" or options.boundary_code
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, function in contenders.items():
            _, output = run([python, CONTENDERS, function, str(images)], HERE, path)
            found[name].append(json.loads(output.splitlines()[-1]))
    ours = None
    for name, rounds in found.items():
        seconds, memory, value = (statistics.median(each[key] for each in rounds) for key in ("cpu", "memory", "value"))
        ours = ours or seconds
        cells = f"{seconds:.2f} | {ours / seconds:.2f} | {memory:.0f} | {value:.3f}"
        print(f"| {task}, {images} images | {name} | {cells} |", flush=True)


def project(folder: Path) -> None:
    """A project with one dataset, one suite and its teacher, who has learned next to nothing."""
    shutil.copytree(HERE.parent / "params", folder / "params")
    (folder / "params/suites/peers.yaml").write_text(SUITE)
    with (folder / "params/recipes.yaml").open("a") as recipes:
        recipes.write(RECIPE)
    for words in (["fetch", "scenes-smoke"], ["train", "--suite", "peers", TEACHER]):
        run([sys.executable, "-m", "bcd.cli", *words], folder, [HERE.parent])


def training(python: Path, options: argparse.Namespace) -> None:
    lengths = (2, 6) if options.quick else STEPS
    seconds: dict[str, dict[int, list[float]]] = {name: {length: [] for length in lengths} for name in TRAININGS}
    with tempfile.TemporaryDirectory() as temporary:
        template = Path(temporary) / "template"
        project(template)
        for number in range(options.rounds):
            for length in lengths:
                for name, function in TRAININGS.items():
                    folder = Path(temporary) / f"{number}-{length}-{name}"
                    shutil.copytree(template, folder)
                    words = ["train", "--suite", "peers", "--set", f"recipe.steps={length}", STUDENT]
                    command = [python, CONTENDERS, function, str(length)]
                    if function is None:
                        command = [sys.executable, "-m", "bcd.cli", *words]
                    seconds[name][length].append(run(command, folder, [HERE.parent])[0])
                    shutil.rmtree(folder)
    steps: dict[str, float] = {}
    for name, of in seconds.items():
        few, many = (statistics.median(of[length]) for length in lengths)
        steps[name] = (many - few) / (lengths[1] - lengths[0])
        rest = few - lengths[0] * steps[name]
        print(f"| {name} | {1e3 * steps[name]:.1f} | {steps['ours'] / steps[name]:.2f} | {rest:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="next to no images and steps, to see that it runs")
    parser.add_argument("--only", nargs="+", default=[*EVALUATIONS, "training"], choices=[*EVALUATIONS, "training"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--boundary-code", type=lambda name: Path(name).resolve(), help="a clone of boundary-iou-api")
    options = parser.parse_args()
    options.rounds = 1 if options.quick else options.rounds
    python = environment()
    cpu = next(line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    print(f"{cpu}, one thread; Python {platform.python_version()}, torch {version('torch')}, numpy {version('numpy')}, "
          f"{', '.join(PINS)}\n")  # fmt: skip
    chosen = [task for task in EVALUATIONS if task in options.only]
    if chosen:
        print(
            "| evaluation | contender | CPU s | ours / theirs | MiB | number |\n|---|---|---:|---:|---:|---:|",
            flush=True,
        )
    for task in chosen:
        evaluation(task, python, options)
    if "training" in options.only:
        print("\n| loop | CPU ms a step | ours / theirs | CPU s besides |\n|---|---:|---:|---:|", flush=True)
        training(python, options)


if __name__ == "__main__":
    main()
