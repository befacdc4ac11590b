"""docs/claims.md: its figures are those of results/reference, and each verdict follows from the rows above it."""

import csv
import re

import pytest
from support.project import ROOT

from bcd.losses import TERMS

PAGE = (ROOT / "docs" / "claims.md").read_text()
SECTIONS = dict(block.split("\n", 1) for block in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:])
DIFFERENCES = "| table | method | against | metric | difference | marked | the claim needs |"
KEPT = "| table | kept, miou |"
claims = {name: text for name, text in SECTIONS.items() if re.match(r"\d+\. ", name)}
tested = {name: text for name, text in claims.items() if DIFFERENCES in text}


def rows(text: str, header: str) -> list[dict[str, str]]:
    """The lines of every Markdown table in `text` whose header begins with `header`."""
    found: list[dict[str, str]] = []
    lines = text.splitlines()
    for start, line in enumerate(lines):
        if line.startswith(header):
            names = [cell.strip() for cell in line.strip("|").split("|")]
            for row in lines[start + 2 :]:
                if not row.startswith("|"):
                    break
                found.append(dict(zip(names, (cell.strip() for cell in row.strip("|").split("|")), strict=True)))
    return found


def measured(table: str) -> list[dict[str, str]]:
    with (ROOT / "results" / "reference" / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def cell(table: str, **where: str) -> dict[str, str]:
    """The line of a table; `TABLE@FORM` is of students in that form of params/exports.yaml."""
    name, _, form = table.partition("@")
    lines = measured(name)
    if "export" in lines[0]:
        where["export"] = form
    found = [line for line in lines if all(line[column] == value for column, value in where.items())]
    assert len(found) == 1, f"{table}: {len(found)} lines with {where}"
    return found[0]


def signed(number: str) -> str:
    return "0.00" if (text := f"{float(number):+.2f}") in ("+0.00", "-0.00") else text


def mark(line: dict[str, str]) -> str:
    if line["significant"] != "true":
        return "no"
    return "better" if float(line["difference"]) > 0 else "worse"


def verdict(evidence: list[dict[str, str]]) -> str:
    """The rule that the page states, of rows that say what is marked and what the claim needs."""
    as_needed = [row["marked"] == row["the claim needs"] for row in evidence]
    if all(as_needed):
        return "supported"
    if any(as_needed):
        return "partly supported"
    opposite = all(row["marked"] not in ("no", row["the claim needs"]) for row in evidence)
    return "contradicted" if opposite else "not supported"


@pytest.mark.parametrize("name", tested)
def test_differences_are_those_of_the_reference_tables(name):
    for row in rows(tested[name], DIFFERENCES):
        line = cell(row["table"], method=row["method"], metric=row["metric"])
        text = f"{signed(line['difference'])} [{signed(line['low'])}, {signed(line['high'])}]"
        assert (row["difference"], row["marked"]) == (text, mark(line)), row
        baseline = cell(row["table"], method=row["against"], metric=row["metric"])
        assert baseline["difference"] == "" and row["against"] != "teacher", row


@pytest.mark.parametrize("name", tested)
def test_the_verdict_follows_from_the_rows(name):
    stated = re.search(r"^Verdict: \*\*([a-z ]+)\*\*", tested[name], re.MULTILINE)[1]
    assert stated == verdict(rows(tested[name], DIFFERENCES))


def test_what_students_keep_is_that_of_the_reference_tables():
    found = rows(PAGE, KEPT)
    assert found
    for row in found:
        for metric in ("miou", "biou", "conn"):
            student, teacher = (float(cell(row["table"], method=m, metric=metric)["mean"]) for m in ("none", "teacher"))
            assert row[f"kept, {metric}"] == f"{100 * student / teacher:.1f}", (row, metric)


@pytest.mark.parametrize("name", claims)
def test_a_claim_is_quoted_and_has_a_verdict(name):
    assert re.search(r"^> ", claims[name], re.MULTILINE), "the words of the paper"
    assert re.search(r"^Verdict: \*\*", claims[name], re.MULTILINE)


def test_the_summary_repeats_the_verdicts():
    summary = {row["claim"]: row["verdict"] for row in rows(PAGE, "| claim | verdict |")}
    stated = {name: re.search(r"^Verdict: \*\*([^*]+)\*\*", text, re.MULTILINE)[1] for name, text in claims.items()}
    assert summary == stated


def test_boundary_and_context_read_no_labels():
    assert {TERMS[term].facts for term in ("boundary", "context")} == {("valid",)}
