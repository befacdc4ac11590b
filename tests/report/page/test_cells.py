"""What the widgets of a table know of its content, forms and published numbers included."""

import shlex

from support import tables

from bcd.planning.cost import duration
from bcd.report.content import FileCost, PublishedCell, TableContent
from bcd.report.page import cells
from bcd.report.page.costs import costs


def exported(content: TableContent) -> TableContent:
    """The content with a second block: the same students as ONNX files, compared with PyTorch as with the baseline."""
    pair = content.pairs[0]
    rows = [
        row.model_copy(
            update={
                "file": FileCost(bytes=25_000.0, time=0.31),
                "cells": {m: c.model_copy(update={"to_pytorch": c.difference}) for m, c in row.cells.items()},
            }
        )
        for row in pair.rows
    ]
    return content.model_copy(update={"pairs": [pair, pair.model_copy(update={"export": "onnx", "rows": rows})]})


def titles(table, block):
    return [column["title"] for column in table["blocks"][block]["columns"]]


def cell(table, block, method, title):
    row = next(row for row in table["blocks"][block]["rows"] if row["method"] == method)
    return row["cells"][titles(table, block).index(title)]


def test_a_cell_has_its_words_and_its_number(project):
    tables.finish_clearly(project)
    content = tables.content()
    found = content.pairs[0].row("bcd").cells["biou"].difference
    shown = cell(cells.table(content), 0, "bcd", "Δ bIoU")
    assert shown["sort"] == found.mean and shown["mark"] == "better"
    assert shown["text"] == f"+{found.mean:.2f}" and shown["more"] == f"[+{found.low:.2f}, +{found.high:.2f}]"
    assert cell(cells.table(content), 0, "none", "Δ bIoU") == {"text": "–", "more": "", "sort": None, "mark": ""}


def test_main_metrics_come_first_and_the_others_wait(project):
    columns = cells.table(tables.content())["blocks"][0]["columns"]
    assert [column["title"] for column in columns[:6]] == ["mIoU", "Δ mIoU", "bIoU", "Δ bIoU", "Conn", "Δ Conn"]
    assert [column["main"] for column in columns] == [True] * 6 + [False] * 7


def test_forms_have_their_file_its_time_and_what_they_lose(project):
    shown = cells.table(exported(tables.content()))
    assert cell(shown, 1, "bcd", "file")["text"] == "25 kB" and cell(shown, 1, "bcd", "time")["sort"] == 0.31
    assert cell(shown, 1, "bcd", "Δ mIoU to PyTorch") == cell(shown, 1, "bcd", "Δ mIoU")
    spent = costs(exported(tables.content()), {})["blocks"]
    assert spent[1]["heads"][-2:] == ["file", "time of a file"]
    assert spent[1]["rows"][1]["cells"][-2:] == ["25 kB", "0.31"]


def test_a_block_has_no_column_in_which_none_of_its_rows_has_anything(project):
    content = exported(tables.content())
    shown = cells.table(content)
    only = {"file", "time", *(f"Δ {title} to PyTorch" for title in ("mIoU", "bIoU", "Conn"))}
    assert not only & set(titles(shown, 0)) and only <= set(titles(shown, 1))
    assert titles(shown, 0) == titles(cells.table(tables.content()), 0)
    for block in shown["blocks"]:
        assert all(len(row["cells"]) == len(block["columns"]) for row in block["rows"])
    spent = costs(content, {})["blocks"]
    assert len(spent[0]["heads"]) == len(spent[0]["rows"][0]["cells"]) == len(spent[1]["heads"]) - 2


def test_published_numbers_stand_beside(project):
    content = tables.content()
    beside = PublishedCell(value=40.7, undistilled=None, source=3, file="a.csv", line=2, columns={"value": "40.7"})
    pair = content.pairs[0]
    rows = [row.model_copy(update={"published": {"miou": beside}}) if row.method == "kd" else row for row in pair.rows]
    shown = cells.table(content.model_copy(update={"pairs": [pair.model_copy(update={"rows": rows})]}))
    assert cell(shown, 0, "kd", "published mIoU")["text"] == "40.7 [3]"
    assert cell(shown, 0, "cwd", "published mIoU")["text"] == "–"


def test_commands_are_words_of_a_shell(project):
    content = tables.content().model_copy(update={"suite": "a suite; rm -r ~"})
    command = cells.table(content)["again"]["command"]
    assert shlex.split(command) == ["bcd", "tables", "--suite", "a suite; rm -r ~", "--table", "all-labels"]


def test_times_have_a_unit_that_fits():
    assert [duration(s) for s in (4.0, 59.4, 90.0, 5400.0)] == ["4 s", "59.4 s", "1.5 min", "1.5 h"]
