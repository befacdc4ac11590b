"""What each method adds to `none`, a row for each pair of some tables: the tables of docs/results/pretrained.md.

    python benchmarks/gains.py results/reference/camvid-pretrained-why/teachers.csv [CSV ...] [--metrics miou biou conn]

Under each metric stand the teacher's value, that of `none`, and the differences to it in points; bold is significantly
better, † significantly worse, and empty what a table does not have.
"""

import argparse
import csv
from pathlib import Path

Line = dict[str, str]  # of a table's CSV file
Pair = tuple[str, str, str]  # dataset, teacher, student


def read(path: Path) -> list[Line]:
    """The lines of a table without exported students."""
    with path.open(newline="", encoding="utf-8") as file:
        return [line for line in csv.DictReader(file) if not line.get("export")]


def cell(line: Line | None) -> str:
    """A difference with its mark, or a mean where nothing is compared."""
    if line is None:
        return ""
    if not line["difference"]:
        return f"{float(line['mean']):.1f}"
    shown = f"{float(line['difference']):+.1f}"
    if line["significant"] != "true":
        return shown
    return f"**{shown}**" if float(line["difference"]) > 0 else f"{shown} †"


def rows(tables: list[list[Line]], metric: str) -> list[list[str]]:
    """The head and a row for each pair of each table, as texts."""
    methods = dict.fromkeys(line["method"] for table in tables for line in table)
    found = [["dataset", "student", *(m if m == "teacher" else f"`{m}`" for m in methods)]]
    for table in tables:
        pairs: dict[Pair, dict[str, Line]] = {}
        for line in table:
            if line["metric"] == metric:
                pair = (line["dataset"], line["teacher"], line["student"])
                pairs.setdefault(pair, {})[line["method"]] = line
        for (dataset, _, student), by_method in pairs.items():
            found.append([dataset, student, *(cell(by_method.get(method)) for method in methods)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", help="CSV files of tables")
    parser.add_argument("--metrics", nargs="+", default=["miou", "biou", "conn"])
    arguments = parser.parse_args()
    tables = [read(path) for path in arguments.tables]
    for metric in arguments.metrics:
        head, *body = rows(tables, metric)
        print(f"\n{metric}:\n")
        print("\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * 2 + ["---:"] * (len(head) - 2), *body)))


if __name__ == "__main__":
    main()
