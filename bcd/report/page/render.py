"""The page as HTML: templates filled with JSON values, of which one copy drives the widgets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bcd.errors import counted
from bcd.report.content import TableContent
from bcd.report.page import costs, library, verdicts
from bcd.report.page.inference import cost_claim
from bcd.report.render.text import partial_text
from bcd.runs.record import Record

TEMPLATES = Path(__file__).with_name("templates")
TASKS = {
    "semantic": "semantic segmentation",
    "detection": "object detection",
    "instance": "instance segmentation",
}
SCRIPTS = ("page.js", "tables.js", "charts.js", "viewer.js", "trace.js")


@dataclass(frozen=True)
class About:
    """What a page says of itself.

    suite, description  of the suite
    captions            what its params say of each table, by name
    folder              where the files of its tables lie
    command             what makes it again
    lacks               sentences about what it does not show, and why
    made_of             what it is made of; empty where that is no suite of today
    """

    suite: str
    description: str
    captions: Mapping[str, str]
    folder: str
    command: str
    lacks: Sequence[str] = ()
    made_of: str = ""


def render(
    about: About,
    contents: Sequence[TableContent],
    tables: Sequence[Mapping[str, Any]],
    records: Mapping[str, Record],
    pictures: Mapping[str, str],
) -> str:
    """The text of the page; whatever names and captions hold stays text.

    tables: of `page._table`, in the order of `contents`. records: by the key of a run. pictures: of an `Album`.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    charts = library.charts()
    return environment.get_template("page.html").render(
        about=about,
        claims=[*verdicts.claims(contents), cost_claim(contents, costs.sizes(records))],
        tasks=TASKS,
        reach=reach,
        counted=counted,
        rule=verdicts.RULE,
        tables=tables,
        partial=[f"{one.table}: {partial_text(one.partial)}" for one in contents if one.partial],
        devices=costs.devices(list(records.values())),
        style=_source("style.css"),
        scripts=[_source(name) for name in SCRIPTS],
        charts=charts,
        library=Markup(charts.script),
        data=embedded({"suite": about.suite, "tables": tables, "pictures": pictures}),
    )


def reach(verdict: verdicts.Verdict) -> float:
    """The farthest from zero that an interval of a verdict's rows goes: what they are drawn in scale to."""
    found = [one.difference for one in verdict.evidence if one.difference]
    return max((abs(end) for one in found for end in (one.low, one.high) if end is not None), default=0.0)


def embedded(value: Any) -> Markup:
    """JSON that may stand in a script element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _source(name: str) -> Markup:
    """A file of our own that goes into the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
