"""What a suite's file may say shorter: tables taken from other suites, settings that replace what they use, and one
entry for many published numbers. Pure functions of what `bcd.config` has read."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from bcd.schema import Suite, Table

# What a setting can replace something of: `<part>.<name>.<field>`, where a name may hold `*`.
PARTS = ("datasets", "models", "recipes", "tables")


def adopted(table: Table, origin: str) -> Table:
    """A table of the suite `origin` under names of its own: tables and datasets become `origin-table` and
    `origin.dataset`, so that no run of one suite stands where another suite's run of the same pair does."""
    pairs = [
        pair.model_copy(
            update={
                "dataset": f"{origin}.{pair.dataset}",
                "teacher_dataset": pair.teacher_dataset and f"{origin}.{pair.teacher_dataset}",
            }
        )
        for pair in table.pairs
    ]
    return table.model_copy(update={"name": f"{origin}-{table.name}", "pairs": pairs})


def plain_name(suite: Suite, dataset: str) -> str:
    """The name in params/datasets.yaml of a dataset that one of the suite's tables calls `dataset`."""
    origin, _, name = dataset.partition(".")
    return name if origin in suite.of else dataset


def names(table: Table) -> dict[str, set[str]]:
    """Part -> what a table uses of it, under the table's names."""
    pairs = table.pairs
    datasets = {name for pair in pairs for name in (pair.dataset, pair.teacher_dataset) if name}
    return {
        "datasets": datasets,
        "models": {name for pair in pairs for name in (pair.student, pair.teacher)},
        "recipes": {name for pair in pairs for name in (pair.recipe, pair.teacher_recipe)},
        "tables": {table.name},
    }


def settings(suite: Suite, part: str, name: str) -> dict[str, Any]:
    """Field -> value: what the suite's `set` replaces in one dataset, model, recipe or table; later lines win."""
    found = {}
    for key, value in suite.set.items():
        of, pattern, field = key.split(".", 2)
        if of == part and fnmatchcase(plain_name(suite, name) if part == "datasets" else name, pattern):
            found[field] = value
    return found


def idle_setting(suite: Suite) -> str | None:
    """The first key of the suite's `set` that concerns nothing its tables use, or is no `<part>.<name>.<field>`."""
    used = {part: {name for table in suite.tables for name in names(table)[part]} for part in PARTS}
    for key in suite.set:
        part, _, rest = key.partition(".")
        pattern, _, field = rest.partition(".")
        plain = {plain_name(suite, name) if part == "datasets" else name for name in used.get(part, ())}
        if not field or not any(fnmatchcase(name, pattern) for name in plain):
            return key
    return None


def published_cells(entries: Any) -> Any:
    """`published` of a table with one entry a cell.

    An entry may name several rows by `methods`, a mapping of them to the names that the file has for them, and
    several `metrics`; what it says else holds for each cell. Anything else is left as it is, for the schema to judge.
    """
    if not isinstance(entries, list):
        return entries
    return [cell for entry in entries for cell in (_cells(entry) if isinstance(entry, dict) else [entry])]


def _cells(entry: dict[str, Any]) -> list[dict[str, Any]]:
    rest = dict(entry)
    rows = [{}]
    if isinstance(entry.get("methods"), dict) and isinstance(entry.get("where", {}), dict):
        theirs = rest.pop("methods")
        rows = [{"method": row, "where": entry.get("where", {}) | {"method": name}} for row, name in theirs.items()]
    metrics = [{}]
    if isinstance(entry.get("metrics"), list):
        metrics = [{"metric": metric} for metric in rest.pop("metrics")]
    return [rest | row | metric for row in rows for metric in metrics]
