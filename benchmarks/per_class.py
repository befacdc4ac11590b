"""Which classes a method's gains are in: differences to the baseline by class, the thinnest class first.

    python benchmarks/per_class.py --suite camvid-pretrained --table lite [--metrics miou biou conn]

Needs the finished runs of a semantic table. A class's width is twice its pixels over its contour pixels in the test
labels: that of a long stripe is its thickness. Each difference is the mean over paired seeds, with their standard
deviation; single classes are not tested for significance.
"""

import argparse

import numpy as np

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.data.semantic.split import open_split
from bcd.errors import UserError
from bcd.metrics import per_class
from bcd.runs.expand import Row, table_rows
from bcd.runs.run import Run
from bcd.runs.status import DATA
from bcd.runs.usable import read_rows, read_runs


def widths(run: Run) -> np.ndarray:
    """2 x pixels / contour pixels of each class in the labels that a run is evaluated on, float64 (C,)."""
    split = open_split(DATA / run.files, run.training.data, run.evaluation.split)
    classes = len(run.training.data.classes)
    area, contour = np.zeros(classes), np.zeros(classes)
    for index in range(len(split)):
        label = split.read(index)[1]
        edge = np.zeros(label.shape, bool)
        down, right = label[1:] != label[:-1], label[:, 1:] != label[:, :-1]
        edge[1:] |= down
        edge[:-1] |= down
        edge[:, 1:] |= right
        edge[:, :-1] |= right
        area += np.bincount(label.ravel(), minlength=256)[:classes]
        contour += np.bincount(label[edge], minlength=256)[:classes]
    return 2 * area / np.maximum(contour, 1)


def report(suite: str, block: list[Row], metrics: list[str], baseline: str) -> None:
    runs = [run for row in block for run in row.runs]
    found = read_runs(suite, runs)
    names = runs[0].training.data.classes
    thickness = widths(next(row for row in block if row.method == baseline).runs[0])
    order = np.argsort(thickness)
    counts = {row.method: [read_rows(found[run.key]) for run in row.runs] for row in block}
    for metric in metrics:
        values = {method: np.stack([per_class(rows, metric) for rows in runs]) for method, runs in counts.items()}
        base = values[baseline]
        print(f"\n### {block[0].pair.student}, {metric}\n")
        print(f"| method | {' | '.join(names[c] for c in order)} |\n|---{'|---:' * len(order)}|")
        print(f"| width, px | {' | '.join(f'{thickness[c]:.1f}' for c in order)} |")
        print(f"| {baseline} | {' | '.join(f'{base[:, c].mean():.1f}' for c in order)} |")
        for method, one in values.items():
            if method == "teacher":
                print(f"| teacher | {' | '.join(f'{one[0, c]:.1f}' for c in order)} |")
            elif method != baseline:
                gains = one - base
                spread = gains.std(0, ddof=1) if len(gains) > 1 else np.full(len(names), np.nan)
                cells = (
                    f"{round(gains[:, c].mean(), 1) + 0:+.1f}" + (f" ± {spread[c]:.1f}" if len(gains) > 1 else "")
                    for c in order
                )
                print(f"| {method} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--metrics", nargs="+", default=["miou", "biou", "conn"])
    options = parser.parse_args()
    params, suite = load_params(), load_suite(options.suite)
    table = next((table for table in suite.tables if table.name == options.table), None)
    if table is None or table.task != "semantic":
        raise UserError(f"--table: suite {suite.name} has no semantic table '{options.table}'")
    rows = table_rows(params, suite, table)
    size = len(rows) // len(table.pairs)
    for start in range(0, len(rows), size):
        report(suite.name, rows[start : start + size], options.metrics, table.baseline)


if __name__ == "__main__":
    main()
