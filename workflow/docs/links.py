"""Where a file of the repository stands in the site, and the links of pages, which are written for the repository."""

import re
from collections.abc import Callable
from posixpath import dirname, join, normpath, relpath

RESULTS = "results/reference"  # has the same place in both
PROJECT = "project"  # the folder of everything else that is not in docs/
CODE = re.compile(r"(^ *```.*?^ *```$|``.+?``|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=[)\s])")
FENCE = re.compile(r"^( *```\w+) ([\w./-]+)$", re.MULTILINE)


def site_address(path: str) -> str:
    """The page that shows a file or folder of the repository, with the anchor of a table on the page of its suite.

    Args:
        path: relative to the repository, without `..`.

    Returns:
        a page's source relative to docs/, as MkDocs names it, such as `results/reference/scenes/README.md#all-labels`.
    """
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == RESULTS:
        return f"{path}/README.md"
    if table := re.fullmatch(rf"({RESULTS}/[\w-]+)/([\w-]+)\.md", path):
        suite, name = table.groups()
        return f"{suite}/README.md" + ("" if name == "README" else f"#{name}")
    if path.startswith(f"{RESULTS}/"):
        return path if "." in path else f"{path}/README.md"
    return f"{PROJECT}/{path}" if path.endswith(".md") else f"{PROJECT}/{path}.md"


def repository_path(uri: str) -> str:
    """The file that a page of the site stands for; its links are relative to that."""
    if uri.startswith(f"{RESULTS}/"):
        return uri
    return uri.removeprefix(f"{PROJECT}/") if uri.startswith(f"{PROJECT}/") else f"docs/{uri}"


def targets(markdown: str, path: str) -> set[str]:
    """The files of the repository that the page `path` of the repository links to."""
    found: set[str] = set()
    outside_code(markdown, lambda text: found.update(_target(link[1], path) for link in LINK.finditer(text)) or text)
    return found


def relinked(markdown: str, uri: str) -> str:
    """The text of a page, without code, with its links as they are between pages of the site."""

    def replace(link: re.Match[str]) -> str:
        page, _, section = site_address(_target(link[1], repository_path(uri))).partition("#")
        anchor = link[2] or (section and f"#{section}")
        return f"]({relpath(page, dirname(uri))}{anchor}"

    return LINK.sub(replace, markdown)


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """The text with `change` made to all of it but fenced and inline code."""
    parts = CODE.split(markdown)
    return "".join(part if index % 2 else change(part) for index, part in enumerate(parts))


def titled(markdown: str) -> str:
    """A path after the language of a fence becomes its title; GitHub leaves it out."""
    return FENCE.sub(r'\1 title="\2"', markdown)


def _target(link: str, path: str) -> str:
    return normpath(join(dirname(path), link))
