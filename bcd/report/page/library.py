"""The library that draws the page's charts, as text that a page can hold; it is bundled from an installed package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution

PACKAGE = "vl-convert-python"
SNIPPET = "window.vega = vega; window.vegaLite = vegaLite;"


@dataclass(frozen=True)
class Library:
    """JavaScript that defines `vega` and `vegaLite`, what it is, and the words of its licence."""

    script: str
    versions: str
    licence: str


@cache
def charts() -> Library:
    """Vega and Vega-Lite, without anything that they would load; bundled once a process, in about two seconds."""
    import vl_convert

    script = vl_convert.javascript_bundle(SNIPPET)
    lite = vl_convert.get_vegalite_versions()[-1]
    versions = f"Vega {vl_convert.get_vega_version()} and Vega-Lite {lite}, bundled by {PACKAGE} {vl_convert.__version__}"
    return Library(script.replace("</script", "<\\/script"), versions, _licence())


def _licence() -> str:
    found = distribution(PACKAGE)
    files = [file for file in found.files or () if file.name == "LICENSE"]
    return files[0].read_text() if files else found.metadata["License"]
