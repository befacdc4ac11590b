"""From two words of a user to the two rows of a table that are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bcd.config.schema.suites import Params, Suite, Table
from bcd.errors import UserError, nearest, pick
from bcd.report.content import TEACHER
from bcd.runs.expand import Row, table_rows

LISTED = 8  # candidates that a message names before it only counts the rest


@dataclass(frozen=True)
class Side:
    """A row of a table, or one run of it.

    address  `<task>/<dataset>/<student>-from-<teacher>/<method>`, with `@<export>` and `/s<repetition>` where these are
    """

    table: Table
    row: Row
    address: str

    @property
    def name(self) -> str:
        """The row's method, with the form of an export and the repetition of a single run."""
        return "/".join(self.address.split("/")[3:])

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its runs."""
        return tuple(run.key for run in self.row.runs)


def find_sides(params: Params, suite: Suite, a: str, b: str, table: str | None = None) -> tuple[Side, Side]:
    """The two rows that are meant by `a` and `b`: both of one table, of one block of it if there are such.

    A word is the end of an address, from a slash on: `bcd`, `bcd@onnx`, `bcd/s0`, `student-from-teacher/bcd`, a key as
    `bcd plan --all` lists it; `table:` before it names the table, as `table` does for both.

    Raises:
        UserError: a word fits no row, or both fit none of one table, the same one, or several; the last names them.
    """
    tables = {one.name: one for one in suite.tables}
    if table:
        tables = {table: pick(tables, table, "--table")}
    sides = {name: _sides(params, suite, one) for name, one in tables.items()}
    found = [_meant(word, sides) for word in (a, b)]
    pairs = [(one, other) for one in found[0] for other in found[1] if one.table.name == other.table.name]
    if not pairs:
        where = [", ".join(dict.fromkeys(side.table.name for side in some)) for some in found]
        raise UserError(f"'{a}' stands in {where[0]} and '{b}' in {where[1]}; compare two rows of one table")
    nearness = [_apart(one, other) for one, other in pairs]
    distinct: dict[tuple[tuple[str, ...], ...], tuple[Side, Side]] = {}
    for pair, apart in zip(pairs, nearness, strict=True):
        if apart == min(nearness):  # of tables that share their runs, the first
            distinct.setdefault((pair[0].keys, pair[1].keys), pair)
    if len(distinct) > 1:
        raise UserError(_ambiguous(a, b, list(distinct.values()), sides))
    one, other = next(iter(distinct.values()))
    if one.keys == other.keys:
        raise UserError(f"'{a}' and '{b}' are the same row, {one.table.name}:{one.name}; name two")
    return one, other


def _sides(params: Params, suite: Suite, table: Table) -> list[Side]:
    """The rows of a table, and each of their runs."""
    rows = []
    for row in table_rows(params, suite, table):
        pair, form = row.pair, f"@{row.export}" if row.export else ""
        address = f"{table.task}/{pair.dataset}/{pair.student}-from-{pair.teacher}/{row.method}{form}"
        rows.append(Side(table, row, address))
    runs = [
        Side(table, replace(side.row, runs=[run]), f"{side.address}/s{run.repetition}")
        for side in rows
        for run in side.row.runs
    ]
    return [*rows, *runs]


def _meant(word: str, sides: dict[str, list[Side]]) -> list[Side]:
    """The rows and runs that a word fits."""
    table, colon, name = word.rpartition(":")
    if colon:
        sides = {table: pick(sides, table, f"'{word}'")}
    every = [side for some in sides.values() for side in some]
    if found := [side for side in every if _fits(name, side)]:
        return found
    if (named := word.removesuffix(":")) in sides:
        raise UserError(f"'{word}' is a table; write {named}:ROW, such as {named}:{sides[named][0].name}")
    known = list(dict.fromkeys(side.name for side in every))
    rows = [one for one in known if "/" not in one]
    where = f"table {next(iter(sides))}" if len(sides) == 1 else f"tables {', '.join(sides)}"
    raise UserError(f"'{word}' is no row of the {where}{nearest(name, known if '/' in name else rows)}")


def _fits(name: str, side: Side) -> bool:
    of_a_teacher = side.row.method == TEACHER and name in side.keys  # whose key is that of a student without a method
    return f"/{side.address}".endswith(f"/{name}") or of_a_teacher


def _apart(one: Side, other: Side) -> int:
    """How far apart two rows of a table stand: the same row counts as far as another block."""
    if one.keys == other.keys:
        return 3
    if one.row.pair != other.row.pair:
        return 2
    return int(one.row.export != other.row.export)


def _ambiguous(a: str, b: str, pairs: list[tuple[Side, Side]], sides: dict[str, list[Side]]) -> str:
    words = [" ".join(_shortest(side, sides[side.table.name]) for side in pair) for pair in pairs[:LISTED]]
    more = f" and {len(pairs) - LISTED} more" if len(pairs) > LISTED else ""
    return f"'{a}' and '{b}' fit several rows; say one of: {'; '.join(words)}{more}"


def _shortest(side: Side, others: Iterable[Side]) -> str:
    """The shortest word that fits this row alone."""
    parts = side.address.split("/")
    ends = ["/".join(parts[start:]) for start in range(3, -1, -1)]
    alone = (end for end in ends if {one.keys for one in others if _fits(end, one)} == {side.keys})
    return f"{side.table.name}:{next(alone, side.address)}"
