"""Whether a comparison is at a plateau: the metrics of methods at several lengths of their schedule.

    python benchmarks/schedules.py --out results/schedules.png 75=results/camvid-pretrained-quarter/tables/lite.csv \
        300=results/camvid-pretrained/tables/lite.csv 1200=results/camvid-pretrained-long/tables/lite.csv

reads one table for each number of steps, and prints and draws the methods that all of them have. Every point is whole
trainings with a schedule of their own, not a snapshot of one.
"""

import argparse
from pathlib import Path

import pandas as pd

METRICS = {"miou": "mIoU", "biou": "Boundary IoU", "conn": "connectivity"}


def read(tables: list[str]) -> pd.DataFrame:
    """Columns steps, method, metric, mean and std, of the methods that stand in every table."""
    parts = []
    for entry in tables:
        steps, _, path = entry.partition("=")
        parts.append(pd.read_csv(path).assign(steps=int(steps)))
    common = set.intersection(*(set(part.method) for part in parts))
    found = pd.concat(parts)
    return found[found.method.isin(common) & found.metric.isin(METRICS)]


def markdown(points: pd.DataFrame) -> str:
    """One line for each metric and method, one column for each number of steps."""
    wide = points.pivot(index=["metric", "method"], columns="steps", values="mean")
    order = [(metric, method) for metric in METRICS for method in points.method.unique()]
    lines = [f"| metric | method | {' | '.join(map(str, wide.columns))} |", "|---|---|" + "---:|" * len(wide.columns)]
    for metric, method in order:
        values = " | ".join(f"{value:.1f}" for value in wide.loc[metric, method])
        lines.append(f"| {METRICS[metric]} | {method} | {values} |")
    return "\n".join(lines)


def draw(points: pd.DataFrame, out: Path) -> None:
    """One panel for each metric; bars are standard deviations over seeds, the teacher is a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(METRICS), figsize=(4 * len(METRICS), 3.6), layout="constrained")
    for panel, (metric, title) in zip(panels, METRICS.items(), strict=True):
        for method, line in points[points.metric == metric].groupby("method", sort=False):
            if method == "teacher":
                panel.axhline(line["mean"].mean(), color="black", linewidth=0.8, linestyle=":", label="teacher")
            else:
                width = 2.0 if method == "none" else 1.2
                panel.errorbar(
                    line.steps, line["mean"], line["std"], label=method, linewidth=width, marker="o", ms=3, capsize=2
                )
        panel.set(xscale="log", xlabel="steps of the student", title=f"{title}, %")
        panel.set_xticks(sorted(points.steps.unique()), map(str, sorted(points.steps.unique())), minor=False)
        panel.minorticks_off()
        panel.grid(color="#e5e5e5", linewidth=0.6)
    panels[-1].legend(fontsize=8)
    figure.savefig(out, dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="STEPS=CSV")
    parser.add_argument("--out", type=Path, help="a PNG file")
    options = parser.parse_args()
    points = read(options.tables)
    print(markdown(points))
    if options.out:
        draw(points, options.out)


if __name__ == "__main__":
    main()
