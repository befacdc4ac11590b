"""How uncertain models are at boundaries, and how often they are right there: the premise of BPKD, arXiv 2306.08075.

    python benchmarks/uncertainty.py --suite camvid-pretrained --table lite --methods none bpkd

Needs the finished runs of a semantic table. Prints the mean entropy of the posterior, in nats, and the percentage of
pixels whose class is right, within 3 pixels of another class of the label and elsewhere: mean and standard deviation
over seeds.
"""

import argparse

import numpy as np
import torch

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.data.semantic.split import open_split
from bcd.data.semantic.stream import eval_batches
from bcd.errors import pick
from bcd.label import IGNORE
from bcd.metrics.boundary import class_band
from bcd.runs.expand import table_rows
from bcd.runs.run import Run
from bcd.runs.status import DATA, Status
from bcd.runs.usable import read_runs
from bcd.train.trained import load_trained

BAND = 3


@torch.no_grad()
def at_boundaries(run: Run, status: Status) -> np.ndarray:
    """Entropy in nats and accuracy in percent, at boundaries and elsewhere, of one run: float64 (4,)."""
    assert status.folder is not None  # a finished run has one
    data = run.training.data
    model, _ = load_trained(status.folder)
    split = open_split(DATA / run.files, data, run.evaluation.split)
    sums = np.zeros((2, 3))  # boundary or not; entropy, hits, pixels
    for image, (label,), _ in eval_batches(split.read, range(len(split)), mean=data.mean, std=data.std):
        logits = model(image)["logits"][0]
        entropy = torch.distributions.Categorical(logits=logits.movedim(0, -1)).entropy().numpy()
        hit = logits.argmax(0).numpy() == label
        valid = label != IGNORE
        band = class_band(label, valid, BAND, frame=False)
        for row, where in enumerate((valid & band, valid & ~band)):
            sums[row] += entropy[where].sum(), hit[where].sum(), where.sum()
    entropy, accuracy = sums[:, 0] / sums[:, 2], 100 * sums[:, 1] / sums[:, 2]
    return np.concatenate([entropy, accuracy])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--methods", nargs="+", default=["none", "bpkd"], help="rows beside the teacher's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    params, suite = load_params(), load_suite(options.suite)
    table = pick({table.name: table for table in suite.tables}, options.table, f"suite {suite.name}")
    print(f"| student | method | entropy at boundaries | elsewhere | right at boundaries | elsewhere |\n{'|---' * 6}|")
    for row in table_rows(params, suite, table):
        if row.method not in ("teacher", *options.methods):
            continue
        found = read_runs(suite.name, row.runs)
        values = np.stack([at_boundaries(run, found[run.key]) for run in row.runs])
        means, spread = values.mean(0), values.std(0, ddof=1) if len(values) > 1 else np.full(4, np.nan)
        cells = [f"{m:.2f}" + (f" ± {std:.2f}" if std == std else "") for m, std in zip(means, spread, strict=True)]
        print(f"| {row.pair.student} | {row.method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
