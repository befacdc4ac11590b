"""The library that draws the page's charts, as text that a page can hold; it is bundled from an installed package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution, version

from bcd.errors import UserError

PACKAGE = "vl-convert-python"
AUTHORS = (
    "Vega, Vega-Lite and Vega-Embed: copyright 2015 University of Washington Interactive Data Lab, BSD 3-Clause "
    "licence. The modules of D3 in them: copyright 2010 Mike Bostock, ISC licence. The package that bundles them has "
    "the BSD 3-Clause licence:"
)
SNIPPET = "window.vegaEmbed = vegaEmbed;"


@dataclass(frozen=True)
class Library:
    """JavaScript that defines `vegaEmbed`; what and whose it is, and the words of its licence."""

    script: str
    versions: str
    authors: str
    licence: str


@cache
def charts() -> Library:
    """Vega, Vega-Lite and Vega-Embed, whole; bundled once a process, in about two seconds of the processor.

    Raises UserError if the package is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise UserError(f"the page's charts need {PACKAGE}, which is not installed; run `make install`") from None

    script = vl_convert.javascript_bundle(SNIPPET)
    lite = vl_convert.get_vegalite_versions()[-1]
    versions = (
        f"Vega {vl_convert.get_vega_version()}, Vega-Lite {lite} and Vega-Embed {vl_convert.get_vega_embed_version()}, "
        f"bundled by {PACKAGE} {version(PACKAGE)}"
    )
    return Library(script.replace("</script", "<\\/script"), versions, AUTHORS, _licence())


def _licence() -> str:
    found = distribution(PACKAGE)
    files = [file for file in found.files or () if file.name == "LICENSE"]
    return files[0].read_text(encoding="utf-8") if files else found.metadata["License"]
