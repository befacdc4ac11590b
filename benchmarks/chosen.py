"""The best entry of each method in the tables of a selection, by the mean of the three main metrics of segmentation.

    python benchmarks/chosen.py results/camvid-pretrained-select/tables/*.csv

Rows are called METHOD-WEIGHT (`cwd-low`, `cwd-mid`); what stands before the last hyphen is the method. Tables of the
same student are read as one. They are those of a suite with `split: val`, so no choice has seen what results are
measured on.
"""

import sys

import pandas as pd

METRICS = ["miou", "biou", "conn"]


def main() -> None:
    tables = pd.concat([pd.read_csv(path) for path in sys.argv[1:]])
    tables = tables[tables.metric.isin(METRICS)].drop_duplicates(["student", "method", "metric"])
    for student, table in tables.groupby("student", sort=False):
        print(f"\n{student}\n")
        print("| method | chosen | " + " | ".join(METRICS) + " | mean | mean of the others |\n|---|---|" + "---:|" * 5)
        means = table.pivot_table(index="method", columns="metric", values="mean")[METRICS]
        scores = means.mean(axis=1)
        for name in ("teacher", "none"):
            numbers = " | ".join(f"{value:.1f}" for value in means.loc[name])
            print(f"| {name} | – | {numbers} | {scores.pop(name):.1f} | – |")
        for method, entries in scores.groupby(scores.index.str.rpartition("-").get_level_values(0), sort=False):
            best = entries.idxmax()
            others = ", ".join(
                f"{name.rpartition('-')[2]} {value:.1f}" for name, value in entries.items() if name != best
            )
            numbers = " | ".join(f"{value:.1f}" for value in means.loc[best])
            print(f"| {method} | {best.rpartition('-')[2]} | {numbers} | {entries[best]:.1f} | {others} |")


if __name__ == "__main__":
    main()
