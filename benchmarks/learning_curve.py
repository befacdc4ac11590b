"""How well a run does after more and more training: its metrics at several numbers of steps.

    python benchmarks/learning_curve.py KEY --suite coco-mini --steps 100 200 400 800

trains KEY once for each number of steps (what the store holds is not trained again) and prints a Markdown table. Every
point is a whole run with a schedule of its own, not a snapshot of one.
"""

import argparse

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.errors import pick
from bcd.runs import expand
from bcd.runs.jsonfile import read_as
from bcd.runs.record import RunResult
from bcd.runs.resolve import overridden
from bcd.train import job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("key", help="a run key, as `bcd plan --all` lists them")
    parser.add_argument("--suite", default="coco-mini")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 200, 400, 800])
    options = parser.parse_args()
    runs = expand.suite_runs(load_params(), load_suite(options.suite))
    run = pick(runs, options.key, f"suite {options.suite}")
    results = []
    for steps in options.steps:
        changed = overridden(run, {"recipe.steps": steps})
        job.run_group(options.suite, [changed], say=lambda _: None)
        results.append(read_as(RunResult, changed.file(options.suite)))
    metrics = [name for name, value in results[0].metrics.items() if value == value]
    print(f"| steps | {' | '.join(metrics)} |\n|---:{'|---:' * len(metrics)}|")
    for steps, result in zip(options.steps, results, strict=True):
        print(f"| {steps} | {' | '.join(format(result.metrics[name], '.2f') for name in metrics)} |")


if __name__ == "__main__":
    main()
