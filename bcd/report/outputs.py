"""Where a suite's tables and panels lie, and what they are made of. Light: the Snakefile asks for every table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bcd.config.schema.suites import Suite, Table
from bcd.errors import UserError
from bcd.files import sha256_file
from bcd.report import published
from bcd.runs.jsonfile import read_json
from bcd.runs.run import Run
from bcd.runs.spec import RESULTS, digest

MADE_OF = "made-of"  # the text of a PNG file that says it, and the meta element of a page
HEAD = 4096  # bytes of a page, which begins with it


def table_file(results: Path, suite: str, table_name: str, kind: str, *, partial: bool = False) -> Path:
    """Where a table lies; `kind` is md, tex, csv, json or, for its figure, png.

    A partial table has a folder of its own, which no DAG engine declares, and a name that says what it is.
    """
    if partial:
        return results / suite / "partial" / f"{table_name}.partial.{kind}"
    return results / suite / ("figures" if kind == "png" else "tables") / f"{table_name}.{kind}"


def panels_file(results: Path, suite: str, table_name: str) -> Path:
    """Where the picture of a table lies."""
    return results / suite / "figures" / f"{table_name}-panels.png"


def page_file(results: Path, suite: str, *, partial: bool = False) -> Path:
    """Where the page of a suite lies; that of partial tables lies beside them."""
    return results / suite / ("partial/report.partial.html" if partial else "report.html")


def table_request(suite: Suite, table: Table) -> dict[str, Any]:
    """What is asked of a table beside its runs, as JSON values; raises UserError for unknown published numbers."""
    shown = [asdict(one) for one in published.resolve(suite.name, table)]
    return suite.model_dump(exclude={"tables"}) | table.model_dump(exclude={"panels"}) | {"published": shown}


def panels_request(table: Table) -> dict[str, Any]:
    """What is asked of the panels of a table beside its runs, as JSON values."""
    return {"methods": table.panel_methods, "images": table.panels.images}


def run_hashes(suite: str, runs: Iterable[Run], results: Path = RESULTS) -> dict[str, str | None]:
    """Key -> hash of the run's small JSON, None where it has none."""
    files = {run.key: run.file(suite, results) for run in runs}
    return {key: sha256_file(file) if file.exists() else None for key, file in files.items()}


def table_made_of(suite: Suite, table: Table, runs: Mapping[str, str | None]) -> str:
    """Hash of what the table would be made of today; runs: the `run_hashes` of its rows."""
    return digest({"request": table_request(suite, table), "runs": runs})


def panels_made_of(table: Table, runs: Mapping[str, str | None]) -> str:
    """Hash of what the panels would be made of today; runs: the `run_hashes` of the table's rows."""
    return digest({"request": panels_request(table), "runs": runs})


def page_made_of(tables: Mapping[str, str]) -> str:
    """Hash of what a suite's page would be made of today; tables: name -> its `table_made_of`."""
    return digest({"tables": tables})


def json_made_of(path: Path) -> str | None:
    """What a table's JSON file says that it is made of; None where it says nothing, or is no such file."""
    try:
        found = read_json(path)
    except UserError:
        return None
    return found.get("made_of") if isinstance(found, dict) else None


def png_made_of(path: Path) -> str | None:
    """What a PNG file says that it is made of; None where it says nothing, or is no such file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get(MADE_OF)
    except OSError:
        return None


def html_made_of(path: Path) -> str | None:
    """What a page says that it is made of; None where it says nothing, or is no such file."""
    try:
        with path.open("rb") as page:
            found = re.search(rb'<meta name="made-of" content="([0-9a-f]+)">', page.read(HEAD))
    except OSError:
        return None
    return found[1].decode() if found else None
