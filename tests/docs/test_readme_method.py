"""What README.md says under "Add a method" works literally: every block is applied to a copy of the project."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from support.project import ROOT, copy_project, run

README = (ROOT / "README.md").read_text()
SECTION = README[README.index("\n## Add a method") : README.index("\n## Add a dataset")]
BLOCKS = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
# The place of a block that belongs into the middle of a file: before the first match.
PLACES = (
    ("bcd/losses/__init__.py", r"from ", r"^from bcd\.losses\.fgd "),
    ("bcd/losses/__init__.py", r"    \"", r"^}\n\Z"),
    ("tests/losses/test_losses.py", r"    Case\(", r"^\]\nevery_case"),
    ("docs/reference/methods.md", r"## ", r"^## Not included"),
    ("docs/reference/methods.md", r"\| `", r"(?<=\|\n)^\n(?!.*^\| `)"),
)


def apply(project: Path, target: str, block: str) -> None:
    """Insert a block at its place, append it, or create a file of it."""
    path = project / target
    text = path.read_text() if path.exists() else ""
    for file, start, place in PLACES:
        if file == target and re.match(start, block):
            at = re.search(place, text, re.MULTILINE | re.DOTALL).start()
            path.write_text(text[:at] + block + text[at:])
            return
    gap = "\n\n" if target.endswith(".py") else "\n"
    path.write_text(f"{text}{gap}{block}" if text else block)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of what a clone has, with every block of the section in it."""
    copy = copy_project(tmp_path_factory.mktemp("readme") / "project")
    for folder in ("bcd", "tests", "benchmarks", "docs", "results/reference"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in [*ROOT.glob("*.md"), ROOT / "pyproject.toml"]:
        shutil.copy(file, copy)
    for target, block in BLOCKS:
        apply(copy, target, block)
    return copy


def python(project: Path, *arguments: str) -> str:
    return run(sys.executable, *arguments, cwd=project, PYTHONPATH=str(project), OMP_NUM_THREADS="1").stdout


def test_the_section_has_a_block_for_every_place():
    assert [target for target, _ in BLOCKS] == [
        "params/methods.yaml",
        "bcd/losses/edges.py",
        *["bcd/losses/__init__.py"] * 2,
        "params/methods.yaml",
        "tests/losses/test_losses.py",
        "benchmarks/plain.py",
        *["docs/reference/methods.md"] * 2,
    ]


def test_the_term_and_its_options_are_known(project):
    code = (
        "from bcd.config.terms import check_options, option_names; "
        "check_options('edges', {'power': 2.0}, 'README.md'); print(*option_names('edges'))"
    )
    assert python(project, "-c", code) == "power\n"


def test_the_methods_are_known(project):
    code = (
        "from bcd.config.load import load_params; methods = load_params().methods; "
        "print([(t.term, t.options) for name in ('cwd-neck', 'my-method') for t in methods[name].terms])"
    )
    assert python(project, "-c", code) == "[('cwd', {'temperature': 2.0}), ('edges', {'power': 2.0})]\n"


def test_the_files_are_in_style(project):
    for command in (["check"], ["format", "--check"]):
        python(project, "-m", "ruff", *command, "bcd/losses", "benchmarks/plain.py", "tests/losses/test_losses.py")


@pytest.mark.slow
def test_the_term_keeps_the_contract_and_equals_its_plain_form(project):
    tests = ("tests/losses/test_losses.py", "tests/losses/test_plain.py", "tests/config/test_terms.py")
    python(project, "-m", "pytest", *tests, "-k", "edges or every_term")


@pytest.mark.slow
def test_the_pages_agree_with_the_term_and_the_methods(project):
    python(project, "-m", "pytest", "tests/docs/test_docs.py", "-k", "edges or entry or preset or methods.md")
