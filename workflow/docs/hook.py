"""The hook of mkdocs.yml: pages that are made of other files of the repository, and links between all of them."""

from pathlib import Path
from typing import Any

import links
import pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
ASSETS = Path(__file__).parent / "assets"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the project's own pages, the results with their reports, the API, and the files that pages link to."""
    made = pages.project(ROOT) | pages.results(ROOT) | pages.api(ROOT)
    for uri, content in (made | pages.reports(ROOT)).items():
        files.append(File.generated(config, uri, content=content))
    for uri, path in (pages.figures(ROOT) | {f"assets/{path.name}": path for path in ASSETS.iterdir()}).items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    assert config.nav is not None
    config.nav = [_expanded(entry, list(made)) for entry in config.nav]
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """What GitHub understands and Python's Markdown does not, and links to files beyond docs/."""
    uri = page.file.src_uri
    if uri == pages.METHODS:
        markdown = pages.with_code(markdown)
    return links.outside_code(links.titled(markdown), lambda text: links.relinked(text, uri))


def _expanded(entry: Any, made: list[str]) -> Any:
    """An entry of the nav whose page ends in a slash, with the pages that are made in that folder."""
    (title, target) = next(iter(entry.items()))
    if not (isinstance(target, str) and target.endswith("/")):
        return entry
    return {title: [uri for uri in made if uri.startswith(target)]}
