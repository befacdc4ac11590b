"""What all formats say in the same words."""

import re

import pytest
from support.tables import cell, content, with_cell

from bcd.report.render import latex, markdown, terminal
from bcd.report.render.text import title


@pytest.mark.parametrize(
    ("metric", "heading"),
    [
        ("miou", "mIoU"),
        ("trimap3", "Trimap-3"),
        ("bf3", "BF-3"),
        ("ap", "AP"),
        ("ap75", "AP75"),
        ("ap_s", "AP-S"),
        ("ap_mask", "mask AP"),
        ("ap50_boundary", "boundary AP50"),
    ],
)
def test_headings_of_metrics(metric, heading):
    assert title(metric) == heading


def test_undefined_numbers_are_said_to_be_so(project):
    measured = content()
    found = cell(measured, "bcd", "conn")
    nothing = {"mean": None, "low": None, "high": None, "p": None, "significant": False}
    undefined = found.model_copy(update={"mean": None, "difference": found.difference.model_copy(update=nothing)})
    measured = with_cell(measured, "bcd", "conn", undefined)
    for text in (markdown.render(measured), latex.render(measured)):
        assert len(re.findall(r"n/a", text)) == 2
    assert "n/a" in terminal.render(measured)
