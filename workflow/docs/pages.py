"""Pages of the site that are no files of docs/: the project's own, the reference results and reports, and the API."""

import ast
import re
from pathlib import Path

from links import PROJECT, RESULTS, targets

from bcd.losses import TERMS, Term
from bcd.report.page import kept

METHODS = "reference/methods.md"
API = "reference/api"
REPORT = "report.html"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".cff": "yaml", "": "python"}  # Snakefile has no suffix
# The packages that a program may use, in the order of the nav; the losses have a page of their own making.
PACKAGES = ("distill", "metrics", "tasks", "models", "runs", "data", "config", "train", "export")


def project(root: Path) -> dict[str, str]:
    """The pages of the repository's top, and those files that pages link to; by where they stand in the site."""
    own = {path.name: path.read_text() for path in sorted(root.glob("*.md"))}
    docs = {path.relative_to(root).as_posix(): path.read_text() for path in sorted((root / "docs").rglob("*.md"))}
    linked = {target for path, text in (own | docs).items() for target in targets(text, path)}
    files = [path for path in sorted(linked) if (root / path).is_file() and not path.startswith(("docs/", RESULTS))]
    sources = {f"{PROJECT}/{path}.md": _source(root, path) for path in files if path not in own}
    return {f"{PROJECT}/{name}": text for name, text in own.items()} | sources


def _source(root: Path, path: str) -> str:
    language = "text" if path == "LICENSE" else LANGUAGES[Path(path).suffix]
    return f"# `{path}`\n\n```{language}\n{(root / path).read_text()}```\n"


def results(root: Path) -> dict[str, str]:
    """The pages beside the suites, and one for each suite, with all of its tables and figures."""
    folder = root / RESULTS
    beside = {f"{RESULTS}/{path.name}": path.read_text() for path in sorted(folder.glob("*.md"))}
    suites = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return beside | {f"{RESULTS}/{suite.name}/README.md": _suite(suite) for suite in suites}


def figures(root: Path) -> dict[str, Path]:
    """The files of results that are no text to read: figures, and tables and records for programs."""
    files = sorted(path for path in (root / RESULTS).rglob("*") if path.is_file() and path.suffix != ".md")
    return {path.relative_to(root).as_posix(): path for path in files}


def reports(root: Path) -> dict[str, str]:
    """The report of each suite of which tables were kept as numbers, and not only as text."""
    suites = sorted({path.parent for path in (root / RESULTS).glob("*/*.csv")})
    return {f"{RESULTS}/{suite.name}/{REPORT}": kept.build(suite) for suite in suites}


def _suite(folder: Path) -> str:
    tables = sorted(folder.glob("*.md"))
    figures = [path for path in sorted(folder.glob("*.png")) if not path.with_suffix(".md").exists()]
    report = f"[The report]({REPORT}) has a verdict for each claim, and these tables with charts, on one page."
    reports = [report] if [*folder.glob("*.csv")] else []
    records = [f"The records of the runs are [{path.name}]({path.name})." for path in sorted(folder.glob("*.jsonl"))]
    head = f"# {folder.name} {{#suite}}\n\n[Where these results came from](../README.md), and what they support.\n"
    return "\n\n".join(
        [head, *reports, *records, *map(_table, tables), *(f"## {path.stem}\n\n{_figure(path)}" for path in figures)]
    )


def _table(path: Path) -> str:
    title, _, text = path.read_text().partition("\n")
    assert title.startswith("# "), f"{path}: no title"
    text = re.sub(r"\A\s*(?![#|*\s])([^|\n]+)\n", r'\n???+ note "Caption"\n\n    \1\n', text)
    figure = path.with_suffix(".png")
    others = [other for other in (path.with_suffix(".csv"), path.with_suffix(".tex")) if other.exists()]
    files = "Files: " + ", ".join(f"[{other.name}]({other.name})" for other in others) + "." if others else ""
    return "\n\n".join([f"## {path.stem}", text, _figure(figure) if figure.exists() else "", files])


def _figure(path: Path) -> str:
    return f"![The differences of {path.stem} with their intervals]({path.name})"


def api(root: Path) -> dict[str, str]:
    """One page for the losses and one for each package; `mkdocstrings` fills in what the docstrings say."""
    pages = {f"{API}/{name}.md": _package(root, name) for name in PACKAGES}
    return {f"{API}/README.md": _overview(), f"{API}/losses.md": _losses(root)} | pages


def _overview() -> str:
    rows = [f"| [`bcd.{name}`]({name}.md) | {_summary(name)} |" for name in ("losses", *PACKAGES)]
    return "\n".join(["# API", "", "| package | what it is |", "|---|---|", *rows, ""])


def _summary(package: str) -> str:
    text = (Path(__file__).parents[2] / "bcd" / package / "__init__.py").read_text()
    return text.split('"""')[1].split("\n\n")[0].replace("\n", " ")


def _package(root: Path, name: str) -> str:
    paths = sorted((root / "bcd" / name).rglob("*.py"))
    names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    shown = [module for module in names if "._" not in module]
    own, *modules = sorted(shown)
    return "\n".join([f"# `{own}`", "", _front(root, name), *(f"::: {module}\n" for module in modules)])


def _front(root: Path, name: str) -> str:
    """What the `__init__` of a package says and defines, without what it hands on from the package's modules."""
    body = ast.parse((root / "bcd" / name / "__init__.py").read_text()).body
    names = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    members = ", ".join(one for one in names if not one.startswith("_"))
    return (
        f"::: bcd.{name}\n    options: {{show_root_heading: false, show_root_toc_entry: false, members: [{members}]}}\n"
    )


def _losses(root: Path) -> str:
    entries = _entries((root / "docs" / METHODS).read_text())
    rows = [
        f"| [{name}](#{name}) | [`{symbol(term)}`][{symbol(term)}] | {_taps(term)} |" for name, term in TERMS.items()
    ]
    terms = [_term(name, term, entries[name]) for name, term in TERMS.items()]
    shared = [path.stem for path in sorted((root / "bcd/losses").glob("*.py")) if path.stem != "__init__"]
    used = {term.loss.__module__.rpartition(".")[2] for term in TERMS.values()}
    parts = [f"::: bcd.losses.{name}\n" for name in shared if name not in used]
    return "\n".join(
        [
            "# `bcd.losses`",
            "",
            "| term | loss | default taps |",
            "|---|---|---|",
            *rows,
            "",
            _front(root, "losses"),
            *terms,
            *parts,
        ]
    )


def _term(name: str, term: Term, entry: str) -> str:
    formula = re.search(r"(?:^    .*\n|^\n(?=    ))+", entry, flags=re.MULTILINE)
    assert formula, f"docs/{METHODS}: {name} has no formula"
    link = f"Symbols, options, source and deviations: [methods](../methods.md#{name})."
    return f"## {name}\n\n{formula[0]}\n{link}\n\n::: {symbol(term)}\n    options:\n      heading_level: 3\n"


def symbol(term: Term) -> str:
    """Where the loss of a term is defined, such as `bcd.losses.channel.cwd`."""
    return f"{term.loss.__module__}.{term.loss.__qualname__}"  # type: ignore[union-attr]


def _taps(term: Term) -> str:
    return ", ".join(f"`{tap}`" for tap in term.taps)


def _entries(methods: str) -> dict[str, str]:
    """Heading -> text of docs/reference/methods.md."""
    return dict(block.split("\n", 1) for block in re.split(r"^## ", methods, flags=re.MULTILINE)[1:])


def with_code(methods: str) -> str:
    """That page with a link to the code under each formula."""

    def link(heading: re.Match[str]) -> str:
        name = heading[1]
        return f"{heading[0]}\n\n[`{symbol(TERMS[name])}`](api/losses.md#{name})" if name in TERMS else heading[0]

    return re.sub(r"^## (.+)$", link, methods, flags=re.MULTILINE)
