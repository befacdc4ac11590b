"""The task loss of a table's students while they trained, without the distillation terms: do the curves flatten?

    python benchmarks/training_curves.py --suite camvid-pretrained --table lite --methods none bcd pbd --out loss.png

Needs the finished runs of the table, and draws what their histories hold, means over `log_every` steps. A line is
the mean over seeds, a band their standard deviation.
"""

import argparse
from pathlib import Path

import numpy as np

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.errors import pick
from bcd.runs.expand import Row, table_rows
from bcd.runs.usable import read_runs
from bcd.train import history


def task_loss(suite: str, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Steps (T,) and the task loss of each run there (R, T)."""
    found = read_runs(suite, row.runs)
    lines = [list(history.read(status.folder)) for run in row.runs if (status := found[run.key]).folder]
    steps = np.array([line["step"] for line in lines[0]])
    return steps, np.array([[line["task"] for line in one] for one in lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--methods", nargs="+", default=["none", "bcd", "pbd"])
    parser.add_argument("--out", type=Path, required=True, help="a PNG file")
    options = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    params, suite = load_params(), load_suite(options.suite)
    table = pick({table.name: table for table in suite.tables}, options.table, f"suite {suite.name}")
    figure, panel = pyplot.subplots(figsize=(5, 3.6), layout="constrained")
    for row in table_rows(params, suite, table):
        if row.method in options.methods:
            steps, losses = task_loss(suite.name, row)
            mean, std = losses.mean(0), losses.std(0, ddof=1) if len(losses) > 1 else 0 * losses[0]
            (line,) = panel.plot(steps, mean, label=row.method, linewidth=1.4)
            panel.fill_between(steps, mean - std, mean + std, color=line.get_color(), alpha=0.15, linewidth=0)
    panel.set(xlabel="step", ylabel="task loss", yscale="log", title=f"{suite.name}: {table.name}")
    panel.grid(color="#e5e5e5", linewidth=0.6)
    panel.legend(fontsize=8)
    figure.savefig(options.out, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
