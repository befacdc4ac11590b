"""What a suite's file may say shorter: tables taken from other suites, settings that replace what they use, and one
entry for many published numbers. Pure functions of what `bcd.config.load` has read."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from bcd.config.check import check
from bcd.config.entries import Entries
from bcd.config.load import checked_name
from bcd.config.overrides import override
from bcd.config.schema.base import Strict, repeated
from bcd.config.schema.suites import SHARED, Params, Suite, Table
from bcd.config.yaml_file import read_yaml
from bcd.errors import UserError, nearest

Value = TypeVar("Value", bound=Strict)
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


def used_names(table: Table) -> dict[str, set[str]]:
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
    used = {part: {name for table in suite.tables for name in used_names(table)[part]} for part in PARTS}
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
    rows: list[dict[str, Any]] = [{}]
    if isinstance(entry.get("methods"), dict) and isinstance(entry.get("where", {}), dict):
        theirs = rest.pop("methods")
        rows = [{"method": row, "where": entry.get("where", {}) | {"method": name}} for row, name in theirs.items()]
    metrics: list[dict[str, Any]] = [{}]
    if isinstance(entry.get("metrics"), list):
        metrics = [{"metric": metric} for metric in rest.pop("metrics")]
    return [rest | row | metric for row in rows for metric in metrics]


def load_suite(name: str, folder: Path = Path("params")) -> Suite:
    """Read `params/suites/<name>.yaml`, with the tables of the suites that it is made `of`."""
    return _load(checked_name(name, "suite"), folder, ())


def _load(name: str, folder: Path, above: tuple[str, ...]) -> Suite:
    path = folder / "suites" / f"{name}.yaml"
    if not path.exists():
        known = [p.stem for p in (folder / "suites").glob("*.yaml")]
        raise UserError(f"{path} does not exist{nearest(name, known)}")
    if name in above:
        raise UserError(f"{path}: of: a suite cannot be made of itself; it is by way of {' -> '.join((*above, name))}")
    raw = read_yaml(path)
    shared = {key: raw.pop(key) for key in SHARED if key in raw}
    if isinstance(raw.get("tables"), list):
        raw["tables"] = [shared | table if isinstance(table, dict) else table for table in raw["tables"]]
        for table in raw["tables"]:
            if isinstance(table, dict) and "published" in table:
                table["published"] = published_cells(table["published"])
    suite = check(Suite, raw | {"name": name}, str(path))
    if above and suite.of:
        raise UserError(
            f"{path}: of: {above[-1]} is made of this suite, which is made of others itself; "
            f"name {', '.join(suite.of)} in {above[-1]}"
        )
    taken = [adopted(table, other) for other in suite.of for table in _load(other, folder, (*above, name)).tables]
    return _joined(suite.model_copy(update={"tables": [*suite.tables, *taken]}), str(path))


def _joined(suite: Suite, where: str) -> Suite:
    """The suite with its settings of tables; raises UserError for names that stand twice and settings of nothing."""
    if twice := repeated(table.name for table in suite.tables):
        raise UserError(f"{where}: tables: two are called '{twice}'; give one another name")
    if idle := idle_setting(suite):
        raise UserError(
            f"{where}: set.{idle}: it concerns nothing that the suite's tables use; write <part>.<name>.<field>, where "
            f"part is {', '.join(PARTS)} and * stands for any letters of a name"
        )
    if renaming := next((key for key in suite.set if key.startswith("tables.") and key.endswith(".name")), None):
        raise UserError(f"{where}: set.{renaming}: a table's name is not replaced; change it where the table stands")
    tables = [_as_set(suite, "tables", table.name, table) for table in suite.tables]
    return suite.model_copy(update={"tables": tables})


def for_table(params: Params, suite: Suite, table: Table) -> Params:
    """`params` as a table of the suite sees them.

    Datasets stand under the table's names for them, and datasets, models and recipes have the suite's settings.
    Names that are not defined are left to whoever looks them up.
    """
    if not suite.of and not suite.set:
        return params
    used = used_names(table)
    datasets = {name: plain_name(suite, name) for name in used["datasets"]}
    return replace(
        params,
        datasets=_set_of(suite, "datasets", datasets, params.datasets),
        models=_set_of(suite, "models", {n: n for n in used["models"]}, params.models),
        recipes=_set_of(suite, "recipes", {n: n for n in used["recipes"]}, params.recipes),
    )


def _set_of(suite: Suite, part: str, names: dict[str, str], known: Entries[Value]) -> Entries[Value]:
    """`known` with the suite's settings for what is defined of the table's `names` (-> those in params/)."""
    return known.replaced(
        {name: _as_set(suite, part, name, known[plain]) for name, plain in names.items() if plain in known}
    )


def _as_set(suite: Suite, part: str, name: str, value: Value) -> Value:
    """`value` with what the suite's `set` says of it, checked like the file that it came from."""
    chosen = settings(suite, part, name)
    if not chosen:
        return value
    where = f"params/suites/{suite.name}.yaml: set.{part}.{name}"
    return check(type(value), override(value.model_dump(), chosen, where), where)
