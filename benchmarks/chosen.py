"""The best entry of each method in the tables of a selection, by the mean of some metrics.

    python benchmarks/chosen.py results/camvid-pretrained-select/tables/*.csv
    python benchmarks/chosen.py results/scenes-pretrained-select/tables/instance.csv --metrics ap ap_mask ap_boundary

Rows are called METHOD-WEIGHT (`cwd-low`, `cwd-mid`); what stands before the last hyphen is the method. Tables of the
same student are read as one. They are those of a suite with `split: val`, so no choice has seen what results are
measured on.
"""

import argparse

import pandas as pd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="CSV files of one selection")
    parser.add_argument("--metrics", nargs="+", default=["miou", "biou", "conn"])
    options = parser.parse_args()
    tables = pd.concat([pd.read_csv(path) for path in options.tables])
    tables = tables[tables.metric.isin(options.metrics)].drop_duplicates(["student", "method", "metric"])
    for student, table in tables.groupby("student", sort=False):
        print(f"\n{student}\n")
        print(f"| method | chosen | {' | '.join(options.metrics)} | mean | mean of the others |")
        print("|---|---|" + "---:|" * (2 + len(options.metrics)))
        means = table.pivot_table(index="method", columns="metric", values="mean")[options.metrics]
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
