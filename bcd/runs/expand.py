"""From a suite to its runs: the rows of its tables, with keys and paired seeds, and the jobs that train them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from bcd.config.load import parse_method
from bcd.config.overrides import changed_terms
from bcd.config.schema.base import TaskName
from bcd.config.schema.methods import Method
from bcd.config.schema.suites import Pair, Params, Suite, Table, Variant
from bcd.config.suites import for_table
from bcd.errors import UserError, nearest, pick
from bcd.runs.resolve import Request, resolved
from bcd.runs.run import Run


@dataclass(frozen=True)
class Row:
    """One row of a table: a method of a pair in one form, with one run per repetition; PyTorch's form has no export."""

    pair: Pair
    export: str | None
    method: str
    runs: list[Run]


def paired_seed(dataset: str, pair: str, repetition: int) -> int:
    """A seed below 2^31 from dataset, pair and repetition, never from the method: compared methods share it."""
    return int.from_bytes(hashlib.sha256(f"{dataset}/{pair}/{repetition}".encode()).digest()[:4], "big") >> 1


def table_rows(params: Params, suite: Suite, table: Table) -> list[Row]:
    """The rows of a table in reading order: per pair and export, PyTorch first, the teacher, then each method."""
    where = f"params/suites/{suite.name}.yaml: tables.{table.name}"
    params = for_table(params, suite, table)
    methods = [_method(params, entry, where) for entry in table.methods]
    seeds = range(suite.first_seed, suite.first_seed + table.seeds)
    rows = []
    for pair in table.pairs:
        teacher = _teacher_run(params, suite, table.task, pair, where)
        for export in (None, *table.exports):
            rows.append(Row(pair, export, "teacher", [teacher]))
            for name, method in methods:
                requests = [_student_request(table.task, pair, export, name, method, seed, teacher) for seed in seeds]
                runs = [resolved(params, suite.split, request, where) for request in requests]
                rows.append(Row(pair, export, name, runs))
    return rows


def blocks(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of a table by pair and export, in their order: what is compared with one baseline."""
    return [list(block) for _, block in groupby(rows, key=lambda row: (row.pair, row.export))]


def suite_rows(params: Params, suite: Suite) -> dict[str, list[Row]]:
    """Table name -> its rows, for every table of a suite."""
    return {table.name: table_rows(params, suite, table) for table in suite.tables}


def runs_of(rows: Iterable[Row]) -> list[Run]:
    """The runs of some rows, in their order."""
    return [run for row in rows for run in row.runs]


def suite_runs(params: Params, suite: Suite) -> dict[str, Run]:
    """Every run of a suite by key, teachers first. One key with two meanings is an error."""
    return distinct_runs(suite.name, suite_rows(params, suite))


def distinct_runs(suite: str, tables: dict[str, list[Row]]) -> dict[str, Run]:
    """The runs of `suite_rows` by key, teachers first; raises UserError if one key has two meanings."""
    runs: dict[str, Run] = {}
    rows = [row for table in tables.values() for row in table]
    for row in sorted(rows, key=lambda row: row.method != "teacher"):
        for run in row.runs:
            if run.key in runs and runs[run.key].fingerprint != run.fingerprint:
                raise UserError(
                    f"params/suites/{suite}.yaml: two tables define {run.key} with different parameters; "
                    "give one of the models or datasets another name"
                )
            runs.setdefault(run.key, run)
    return runs


def pick_run(runs: Mapping[str, Run], key: str, suite: str, before: str = "") -> Run:
    """The run of a key; raises UserError that names the nearest keys of `suite_runs` and how to list all.

    before: what else the sentence says first, of a word that may be meant otherwise.
    """
    if key in runs:
        return runs[key]
    hint = nearest(key, runs)
    listed = f"`bcd plan --all --suite {suite}` lists them"
    raise UserError(f"{before}suite {suite}: '{key}' is not defined{hint}{' ' if hint.endswith('?') else '; '}{listed}")


def groups(runs: dict[str, Run]) -> dict[str, list[Run]]:
    """Runs by the address of their training job.

    A job trains the runs that share data, teacher and seed, at most `runtime.learners` of them at once. An address is
    that of the group; where the group needs several jobs, these are numbered from 1: `.../s0-1`, `.../s0-2`.
    """
    grouped: dict[str, list[Run]] = {}
    for run in runs.values():
        grouped.setdefault(run.group, []).append(run)
    jobs: dict[str, list[Run]] = {}
    for address, group in grouped.items():
        parts = _parts(group, group[0].runtime.learners)
        jobs |= {f"{address}-{i}": part for i, part in enumerate(parts, 1)} if len(parts) > 1 else {address: parts[0]}
    return jobs


def _parts(group: list[Run], learners: int | None) -> list[list[Run]]:
    """A group in parts of at most `learners` trainings; one training under two names stays in one part."""
    trainings: dict[str, list[Run]] = {}
    for run in group:
        trainings.setdefault(run.training.hash, []).append(run)
    same, size = list(trainings.values()), learners or len(trainings)
    return [sum(same[i : i + size], []) for i in range(0, len(same), size)]


def _method(params: Params, entry: str | Variant, where: str) -> tuple[str, Method]:
    if isinstance(entry, str):
        return entry, pick(params.methods, entry, f"{where}.methods")
    at = f"{where}.methods.{entry.name}"
    base = pick(params.methods, entry.base, f"{at}.base")
    if entry.terms is not None and (entry.set or entry.add):
        raise UserError(f"{at}: 'terms' says all terms; leave out 'set' and 'add'")
    terms = changed_terms(base.terms, entry.set, entry.add, f"{at}.set") if entry.terms is None else entry.terms
    return entry.name, parse_method({"description": base.description, "terms": terms}, entry.name, at)


def _teacher_run(params: Params, suite: Suite, task: TaskName, pair: Pair, where: str) -> Run:
    dataset, name = pair.teacher_dataset or pair.dataset, pair.teacher
    request = Request(
        f"{task}/{dataset}/{name}/none/s0", task, dataset, name, pair.teacher_recipe, "none", params.methods["none"],
        paired_seed(dataset, name, 0), 0,
    )  # fmt: skip
    return resolved(params, suite.split, request, where)


def _student_request(
    task: TaskName, pair: Pair, export: str | None, name: str, method: Method, repetition: int, teacher: Run
) -> Request:
    names, form = f"{pair.student}-from-{pair.teacher}", f"@{export}" if export else ""
    return Request(
        f"{task}/{pair.dataset}/{names}/{name}{form}/s{repetition}", task, pair.dataset, pair.student, pair.recipe,
        name, method, paired_seed(pair.dataset, names, repetition), repetition, teacher, export,
    )  # fmt: skip
