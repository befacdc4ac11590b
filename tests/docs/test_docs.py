"""The pages agree with the code, with the results they quote, and with one another; they are short sentences."""

import ast
import re
from graphlib import TopologicalSorter

import pytest
import torch
from support import smoke
from support.project import ROOT

from bcd.cli.main import app
from bcd.config.load import load_params
from bcd.config.terms import option_names
from bcd.losses import STAGES, TERMS

PAGE = (ROOT / "docs" / "reference" / "methods.md").read_text()
ENTRIES = dict(block.split("\n", 1) for block in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:])
every_term = pytest.mark.parametrize("name", TERMS)

# Tables of results are made by programs, and quote captions; their README is ours.
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "results" / "reference" / "README.md"]
)
every_page = pytest.mark.parametrize("page", PAGES)
LONGEST = 25  # words of a sentence
# What the examples of README.md tell a reader to write.
EXAMPLES = {"bcd/losses/edges.py", "bcd/losses/edges{.py,/__init__.py}", "bcd/data/formats/mine.py"}
ABBREVIATIONS = re.compile(r"\b(et al|e\.g|i\.e|vs|cf)\.")


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def methods_table() -> dict[str, str]:
    """Method -> the cell of its terms."""
    page = ENTRIES["The methods of `params/methods.yaml`"]
    lines = re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", page, flags=re.MULTILINE)
    return {name: terms for names, terms in lines for name in quoted(names)}


@every_term
def test_every_term_has_an_entry_with_formula_and_source(name):
    entry = ENTRIES[name]
    assert re.search(r"^    \S", entry, flags=re.MULTILINE), "a formula in an indented block"
    assert "Source: " in entry or "Sources: " in entry


@every_term
def test_the_entry_names_the_default_taps(name):
    stated = re.search(r"Taps:\s+([^.;,]*(?:, `[^.;,]*)*)", ENTRIES[name])[1]
    expanded = re.sub(r"`stage1`–`stage4`", ", ".join(f"`{stage}`" for stage in STAGES), stated)
    assert quoted(expanded) == set(TERMS[name].taps)


@every_term
def test_the_entry_names_every_option(name):
    options = set(option_names(name))
    assert options <= quoted(ENTRIES[name])
    assert bool(re.search(r"Options:\s", ENTRIES[name])) == bool(options)


def test_no_entry_without_a_term():
    assert {key for key in ENTRIES if key.islower()} == set(TERMS)  # other headings are sentences


def test_every_preset_is_in_the_table_with_its_terms():
    methods, table = load_params(ROOT / "params").methods, methods_table()
    assert set(table) == set(methods)
    for name, method in methods.items():
        named = quoted(table[name]) & set(TERMS)
        used = {term.term for term in method.terms}
        assert named == used or quoted(table[name]) & set(methods), f"{name}: {table[name]}"


def test_every_term_is_used_by_a_preset():
    used = {term.term for method in load_params(ROOT / "params").methods.values() for term in method.terms}
    assert used == set(TERMS)


def table_of(text: str, first: str) -> dict[str, dict[str, str]]:
    """Row -> column -> cell of the first Markdown table whose first column is called `first`."""
    lines = text[text.index(f"| {first} |") :].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows if len(row) == len(header)}


def test_the_readme_copies_its_table_from_the_results():
    copied = table_of((ROOT / "README.md").read_text(), "method")
    measured = table_of((ROOT / "results/reference/scenes/all-labels.md").read_text(), "method")
    assert list(copied) == list(measured)
    for method, cells in copied.items():
        assert cells == {column: measured[method][column] for column in cells}, method


def prose(text: str) -> list[str]:
    """The lines that are sentences, or lists of them: without code, tables, headings, pictures and comments.

    Inline code counts as one word, a link as its text. A line that is indented by four is code: no page nests lists.
    """
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if line.strip() and not re.match(r"#|\||!\[|    |\[[^\]]*\]: ", line)]
    lines = [re.sub(r"``.+?``|`[^`]+`", "code", line) for line in lines]
    return [re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", line) for line in lines]


def words(line: str) -> int:
    return sum(any(character.isalnum() for character in word) for word in line.split())


@every_page
def test_sentences_are_short(page):
    long = [line for line in prose((ROOT / page).read_text()) if words(line) > LONGEST]
    assert not long, f"more than {LONGEST} words:\n" + "\n".join(long)


@every_page
def test_a_line_is_a_sentence(page):
    lines = [ABBREVIATIONS.sub("", line) for line in prose((ROOT / page).read_text())]
    items = [re.sub(r"^ *(-|\d+\.) +", "", line) for line in lines]
    several = [line for line in items if re.search(r"[\w)%*\"’][.!?][\"')*]* +(?=[A-Z])", line)]
    assert not several, "several sentences:\n" + "\n".join(several)
    broken = [line for line in lines if not re.match(r" *(-|\d+\.) ", line) and line.rstrip("*")[-1] not in ".:!?"]
    assert not broken, "no end of a sentence:\n" + "\n".join(broken)


def slugs(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ +(.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            file = (ROOT / page).parent / path if path else ROOT / page
            assert file.exists(), f"{page}: {target}"
            assert not anchor or anchor in slugs(file.read_text()), f"{page}: {target}"


@every_page
def test_paths_that_are_named_exist(page):
    """`bcd/...` and its like in text and tables, and imports in code; braces stand for several names, a star for any.

    A file of the layout that has not been written yet fails here.
    """
    text = (ROOT / page).read_text()
    imported = re.findall(r"^ *from (bcd[\w.]*) import", text, flags=re.MULTILINE)
    code = "\n".join(quoted(re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)))
    named = {module.replace(".", "/") + "{.py,/__init__.py}" for module in imported}
    named |= set(re.findall(r"^(?:bcd|tests|benchmarks|params|workflow)/\S*", code, flags=re.MULTILINE))
    wanted = [path for path in sorted(named - EXAMPLES) if not re.search(r"[<…]|NAME", path)]
    missing = [path for path in wanted if not exists(path)]
    assert not missing, f"{page}: {missing}"


def exists(path: str) -> bool:
    """Whether every path that the braces spell out is there; of a module's two forms one will do."""
    found = [any(ROOT.glob(one.rstrip("/"))) for one in spelled_out(path)]
    return any(found) if path.endswith("__init__.py}") else all(found)


def spelled_out(path: str) -> list[str]:
    brace = re.search(r"\{([^}]*)\}", path)
    if not brace:
        return [path]
    return [one for word in brace[1].split(",") for one in spelled_out(path.replace(brace[0], word.strip(), 1))]


def readme_examples() -> list[str]:
    """The blocks of Python that belong to no file."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_the_readmes_first_example_runs():
    code = readme_examples()[0]
    assert len(code.splitlines()) <= 8
    names: dict = {}
    exec(code, names)
    assert names["loss"].isfinite() and names["student"].grad.abs().sum() > 0


def test_the_readmes_second_example_runs(project):
    """With the run and the image of the smallest suite in the place of those that it names."""
    teacher = smoke.train(smoke.runs()[smoke.TEACHER])["none"]
    code = readme_examples()[1]
    for theirs, ours in (("results/store/<hash>", str(smoke.folder(teacher))), ("data/scenes/", "data/scenes-smoke/")):
        assert code.count(theirs) == 1
        code = code.replace(theirs, ours)
    names: dict = {}
    exec(code, names)
    assert names["spec"].hash == teacher.store
    assert names["image"].dtype == torch.float32 and abs(names["image"].mean()) < 2
    assert names["label"].shape == (1, *names["image"].shape[2:])


def test_imports_go_down_the_layers_of_the_architecture_page():
    rows = re.findall(r"^\| (\d) \| (`bcd/[^|]*) \|", (ROOT / "docs/architecture.md").read_text(), flags=re.MULTILINE)
    layers = {
        name.removesuffix("/").removesuffix(".py").removesuffix("/__init__").replace("/", "."): int(layer)
        for layer, cell in rows
        for name in re.findall(r"`(bcd/[^`]*)`", cell)
    }
    tops = {path.stem for path in (ROOT / "bcd").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {name for name in layers if name.count(".") == 1} == {f"bcd.{top}" for top in tops - {"__init__"}}
    upwards = [
        f"{module} imports {name}"
        for file in sorted((ROOT / "bcd").rglob("*.py"))
        for module in [module_of(file)]
        for name in sorted(imported(file))
        if layer_of(name, layers) > layer_of(module, layers)
    ]
    assert not upwards, upwards


def test_no_import_goes_in_a_circle():
    """Nor do imports inside functions, which are there for speed."""
    files = {module_of(file): file for file in (ROOT / "bcd").rglob("*.py")}
    graph = {module: (imported(file) & files.keys()) - {module} for module, file in files.items()}
    list(TopologicalSorter(graph).static_order())


def module_of(file) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str, layers: dict[str, int]) -> int:
    """A module's own layer where the page names it alone, else that of its package; the package itself is below all."""
    own = {name: layer for name, layer in layers.items() if name.count(".") > 1}
    return own.get(module, layers.get(".".join(module.split(".")[:2]), 0))


def imported(file) -> set[str]:
    """The modules of `bcd` that a file imports anywhere but for types alone."""
    tree = ast.parse(file.read_text())
    typing = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            files = {name for name in modules if (ROOT / f"{name.replace('.', '/')}.py").exists()
                     or (ROOT / name.replace(".", "/") / "__init__.py").exists()}  # fmt: skip
            found |= files or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("bcd.")}


@every_page
def test_commands_and_suites_that_are_named_exist(page):
    text = (ROOT / page).read_text()
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"^(?:    )?bcd ([a-z][\w-]*)", text, re.MULTILINE)) <= names
    suites = set(re.findall(r"suite=([\w-]+)|--suite ([a-z][\w-]*)", text))
    examples = {"long", "photos"}  # of a trial, docs/results/scale.md, and of what `bcd new` makes
    written = set(re.findall(r"^```yaml params/suites/([\w-]+)\.yaml$", text, re.MULTILINE))
    wanted = {one or other for one, other in suites} - examples - written
    assert all((ROOT / "params" / "suites" / f"{suite}.yaml").exists() for suite in wanted)


@pytest.mark.parametrize("folder", ["bcd", "params", "tests", "benchmarks", "workflow"])
def test_pages_that_the_code_names_exist(folder):
    files = [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in (".py", ".yaml", ".smk")]
    named = {(file, page) for file in files for page in re.findall(r"docs/[\w/-]+\.(?:md|png)", file.read_text())}
    missing = sorted(f"{file.relative_to(ROOT)}: {page}" for file, page in named if not (ROOT / page).exists())
    assert not missing, missing
