"""Which changes of the code make which runs stale: mutations of a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bcd.config.terms import term_sources
from bcd.errors import UserError
from bcd.runs import code

TERMS = sorted(term_sources())
LABELLED = ("ade20k", "camvid", "cityscapes", "cocostuff10k", "cocostuff164k", "pascal_context", "scenes", "voc")
# Name -> task, format and terms of a run.
RUNS = {
    "none": ("semantic", "scenes", ()),
    **{term: ("semantic", "scenes", (term,)) for term in TERMS},
    **{name: ("semantic", name, ()) for name in LABELLED if name != "scenes"},
    "coco": ("detection", "coco", ()),
    "coco/fgd": ("instance", "coco", ("fgd",)),
}
RUFF = (sys.executable, "-m", "ruff")
SEMANTIC = {name for name, (task, _, _) in RUNS.items() if task == "semantic"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copytree(code.PACKAGE, tmp_path / "bcd", ignore=shutil.ignore_patterns("__pycache__")))


def hashes(package: Path) -> dict[str, code.CodeHashes]:
    code.forget()
    return {name: code.fingerprints(*run, package=package) for name, run in RUNS.items()}


def stale(package: Path, change: Callable[[], object]) -> tuple[set[str], set[str]]:
    """The runs whose weights, and those whose metrics, are made by other code after a change."""
    before = hashes(package)
    change()
    after = hashes(package)
    return (
        {name for name in RUNS if before[name].train != after[name].train},
        {name for name in RUNS if before[name].evaluate != after[name].evaluate},
    )


def edit(package: Path, file: str, old: str, new: str) -> Callable[[], object]:
    text = (package / file).read_text()
    assert old in text, f"{file} has no {old}"
    return lambda: (package / file).write_text(text.replace(old, new, 1))


def append(package: Path, file: str, line: str = "CHANGED = 1") -> Callable[[], object]:
    text = (package / file).read_text()
    return lambda: (package / file).write_text(f"{text}\n{line}\n")


def test_a_hash_is_16_hex_digits_and_the_same_again():
    first = code.fingerprints("semantic", "scenes", ["kd", "cwd"])
    code.forget()
    assert all(re.fullmatch("[0-9a-f]{16}", part) for part in first)
    assert code.fingerprints("semantic", "scenes", ("cwd", "kd", "kd")) == first


# The changes of case F1, each of which went unnoticed.


def test_a_changed_mean_over_processes_makes_all_runs_that_import_it_stale(package):
    change = edit(package, "distributed.py", "return total /", "return 2 * total /")
    assert stale(package, change) == (set(RUNS), set(RUNS))


def test_a_changed_wiring_makes_only_runs_with_that_term_stale(package):
    change = edit(
        package,
        "losses/__init__.py",
        '"cwd": Term(cwd, taps=("logits",), match_channels=True',
        '"cwd": Term(cwd, taps=("logits",)',
    )
    assert stale(package, change) == ({"cwd"}, set())


def test_what_all_terms_share_makes_every_training_stale(package):
    change = edit(package, "losses/__init__.py", "match_channels: bool = False", "match_channels: bool = True")
    assert stale(package, change) == (set(RUNS), set())


def test_a_loss_that_the_registry_itself_uses_makes_every_training_stale(package):
    append(package, "losses/__init__.py", "USUAL = cwd")()
    assert stale(package, append(package, "losses/channel.py")) == (set(RUNS), set())


def test_a_file_that_is_no_python_is_named_with_its_line(package):
    path = package / "losses" / "channel.py"
    path.write_text(path.read_text() + "\n\ndef half(:\n")
    line = len(path.read_text().splitlines())
    code.forget()
    with pytest.raises(UserError, match=rf"channel\.py:{line}: invalid syntax; mend the file"):
        code.fingerprints("semantic", "scenes", ("cwd",), package=package)


def test_a_new_ignored_label_makes_every_semantic_run_stale(package):
    train, evaluate = stale(package, edit(package, "label.py", "IGNORE = 255", "IGNORE = 254"))
    assert train >= SEMANTIC and evaluate >= SEMANTIC


def test_renumbered_classes_of_cocostuff_make_exactly_its_runs_stale(package):
    assert "LABELS" in (package / "data/formats/_cocostuff_labels.py").read_text()
    both = {"cocostuff10k", "cocostuff164k"}
    assert stale(package, append(package, "data/formats/_cocostuff_labels.py", "LABELS = LABELS[::-1]")) == (both, both)


# What does not change a result.


@pytest.mark.parametrize("file", ["losses/masked.py", "losses/__init__.py", "models/layers.py", "tasks/semantic.py"])
def test_comments_docstrings_and_layout_make_nothing_stale(package, file):
    path = package / file

    def rewrite() -> None:
        lines = path.read_text().splitlines(keepends=True)
        text = "".join("# A comment.\n" + line if re.match("(def|class) ", line) else line for line in lines)
        path.write_text(re.sub(r'("""[A-Z])', r"\1 other words ", text))
        subprocess.run([*RUFF, "format", "--isolated", "--line-length", "60", path], check=True, capture_output=True)

    before = path.read_text()
    assert stale(package, rewrite) == (set(), set())
    assert path.read_text() != before


@pytest.mark.parametrize(
    "file",
    [
        "__init__.py",
        "cli/main.py",
        "config/schema/recipes.py",
        "data/acquire/fetch.py",
        "errors.py",
        "files.py",
        "planning/cost.py",
        "report/tables.py",
        "runs/store.py",
        "tracking/sync.py",
    ],
)
def test_code_beyond_the_boundary_makes_nothing_stale(package, file):
    assert stale(package, append(package, file)) == (set(), set())


def test_a_metric_makes_evaluations_stale_but_no_weights(package):
    assert stale(package, append(package, "metrics/boundary.py")) == (set(), set(RUNS))


def test_a_loss_makes_trainings_that_use_it_stale_and_no_evaluation(package):
    assert stale(package, append(package, "losses/fgd.py")) == ({"fgd", "coco/fgd"}, set())


def test_a_loss_counts_where_another_loss_imports_it(package):
    assert stale(package, append(package, "losses/channel.py"))[0] == {"cwd", "bpkd_edge", "bpkd_body"}


def test_code_of_detectors_leaves_semantic_runs_alone(package):
    for file in ("models/detection/torchvision_detector.py", "models/detection/detectron2_modules.py"):
        assert stale(package, append(package, file)) == ({"coco", "coco/fgd"},) * 2


# Files that move.


def replace_everywhere(package: Path, pattern: str, new: str) -> None:
    for path in package.rglob("*.py"):
        text = path.read_text()
        if (changed := re.sub(pattern, new, text, flags=re.MULTILINE)) != text:
            path.write_text(changed)


def test_a_renamed_file_makes_nothing_stale(package):
    def rename() -> None:
        (package / "losses/masked.py").rename(package / "losses/masking.py")
        replace_everywhere(package, r"bcd\.losses\.masked\b", "bcd.losses.masking")
        subprocess.run([*RUFF, "check", "--isolated", "--select=I", "--fix", package], check=True, capture_output=True)

    assert stale(package, rename) == (set(), set())
    assert "bcd.losses.masking" in (package / "losses/pkd.py").read_text()


def test_a_module_that_moves_into_a_package_makes_nothing_stale(package):
    def move() -> None:
        (package / "processes").mkdir()
        (package / "processes/__init__.py").write_text('"""Processes."""\n')
        (package / "distributed.py").rename(package / "processes/distributed.py")
        replace_everywhere(
            package, r"^from bcd import distributed, metrics$", "from bcd import distributed\nfrom bcd import metrics"
        )
        replace_everywhere(package, r"^( *)from bcd import distributed$", r"\1from bcd.processes import distributed")

    assert stale(package, move) == (set(), set())


def test_a_module_that_becomes_a_package_makes_nothing_stale(package):
    folder = package / "data/formats"

    def move() -> None:
        (folder / "voc").mkdir()
        (folder / "voc.py").rename(folder / "voc/__init__.py")

    assert stale(package, move) == (set(), set())


def test_relative_imports_make_nothing_stale(package):
    def rewrite() -> None:
        for path in (package / "losses").glob("*.py"):
            path.write_text(
                re.sub(r"from bcd\.losses\.", "from .", path.read_text()).replace("from bcd import", "from .. import")
            )

    assert stale(package, rewrite) == (set(), set())
    assert "from .masked import" in (package / "losses/pkd.py").read_text()


# Nothing is missed.


def whole(package: Path) -> dict[str, code.CodeHashes]:
    """The hashes of runs that together use everything."""
    code.forget()
    semantic = [("semantic", name, TERMS if name == "scenes" else ()) for name in LABELLED]
    return {run[1]: code.fingerprints(*run, package=package) for run in [*semantic, ("detection", "coco", ())]}


def test_every_module_of_a_closure_counts(package):
    before = whole(package)
    names = {name for run in RUNS.values() for part in code.modules(*run, package=package) for name in part}
    files = {file_of(package, name) for name in names if "[" not in name}
    assert len(files) > 80
    for file in files:
        text = file.read_text()
        file.write_text(f"{text}\nCHANGED = 1\n")
        assert whole(package) != before, file
        file.write_text(text)
    assert whole(package) == before


def file_of(package: Path, name: str) -> Path:
    path = package.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


LOADED = """
import sys
import bcd.train.loop, bcd.train.evaluation, bcd.tasks.{task}, bcd.data.formats.{data_format}
from bcd.losses import TERMS
print(*sorted(TERMS))
print(*(name for name in sys.modules if name.partition(".")[0] == "bcd"))
"""


@pytest.mark.parametrize(("task", "data_format"), [("semantic", "cocostuff10k"), ("detection", "coco")])
def test_no_module_that_python_loads_for_a_training_is_missed(task, data_format):
    """Against blindness: what Python itself imports is in the closure or beyond the stated boundary."""
    source = LOADED.format(task=task, data_format=data_format)
    environment = os.environ | {"PYTHONPATH": str(code.PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, env=environment)
    terms, loaded = (line.split() for line in done.stdout.splitlines())
    assert terms == TERMS
    train, evaluate = code.modules(task, data_format, terms)
    stops = (re.escape(name) + r"(\..*)?" for name in code.BOUNDARY if "__init__" not in name)
    boundary = re.compile("|".join([*stops, r"bcd\.data\.formats"]))
    missed = {name for name in set(loaded) - train - evaluate - {"bcd"} if not boundary.fullmatch(name)}
    assert not missed
    assert {name for name in loaded if name.startswith("bcd.metrics")} <= evaluate
    assert set(loaded) > {"bcd.train.loop", "bcd.losses.masked", "bcd.models.backbones"}


def test_a_new_format_makes_no_run_stale(package):
    """FORMATS names what there is; a run starts from its own."""
    before = {key: code.fingerprints(*run, package=package) for key, run in RUNS.items()}
    path = package / "data/formats/__init__.py"
    path.write_text(path.read_text().replace('    "voc":', '    "mine": Format(("semantic",)),\n    "voc":'))
    code.forget()
    assert {key: code.fingerprints(*run, package=package) for key, run in RUNS.items()} == before


def test_the_boundary_names_modules_that_exist():
    for name in (*code.BOUNDARY, *code.EVALUATION_ONLY, *code.TRAINING_ONLY):
        assert file_of(code.PACKAGE, name.removesuffix(".__init__")).exists(), name


def test_what_only_evaluation_or_only_training_uses_is_imported_where_both_meet():
    both = {"bcd.tasks.semantic", "bcd.tasks.detection", "bcd.train.evaluation"}
    for run in RUNS.values():
        train, evaluate = code.modules(*run)
        assert importers(train, code.EVALUATION_ONLY) <= both
        assert importers(evaluate, code.TRAINING_ONLY) <= both


def importers(names: set[str], imported: dict[str, str]) -> set[str]:
    pairs = [name.rsplit(".", 1) for name in imported]
    words = "|".join(rf"from {above}(\.{name}\b| import .*\b{name}\b)" for above, name in pairs)
    return {name for name in names if "[" not in name and re.search(words, file_of(code.PACKAGE, name).read_text())}


def test_no_loss_is_imported_by_way_of_the_registry():
    """Its module would be missed: the registry's imports of losses count with the entries of a run's terms."""
    text = "\n".join(file.read_text() for file in code.PACKAGE.rglob("*.py"))
    imports = re.findall(r"from bcd\.losses import (\([^)]*\)|.*)", text)
    names = {name for line in imports for name in re.findall(r"\w+", line)}
    assert names and names <= {"TERMS", "Term"}


# Rules, each in a package of a few lines.

EMPTY = {"tasks/semantic.py": "", "data/formats/scenes.py": "", "train/evaluation.py": ""}
STARTS = {"bcd.train.loop", "bcd.tasks.semantic", "bcd.data.formats.scenes"}


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., tuple[set[str], code.CodeHashes]]:
    """Writes a package and gives the modules that a run's weights depend on, and its hashes."""

    def make(loop: str, files: dict[str, str]) -> tuple[set[str], code.CodeHashes]:
        package = tmp_path / "bcd"
        shutil.rmtree(package, ignore_errors=True)
        for name, text in {**EMPTY, "train/loop.py": loop, **files}.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(text)
        code.forget()
        train, _ = code.modules("semantic", "scenes", (), package=package)
        return train - STARTS, code.fingerprints("semantic", "scenes", (), package=package)

    return make


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from bcd.a import f", {"bcd.a"}),
        ("from bcd import a", {"bcd.a"}),
        ("import bcd.a", {"bcd.a"}),
        ("import bcd.a as b", {"bcd.a"}),
        ("from ..a import f", {"bcd.a"}),
        ("from .. import a", {"bcd.a"}),
        ("def g():\n    from bcd.a import f\n", {"bcd.a"}),
        ("try:\n    from bcd.a import f\nexcept ImportError:\n    pass\n", {"bcd.a"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bcd.a import f\n", set()),
        ("import typing\nif typing.TYPE_CHECKING:\n    import bcd.a\nelse:\n    import bcd.b\n", {"bcd.b"}),
        ("from bcd.folder import f", {"bcd.folder"}),
        ("from bcd.folder.c import f", {"bcd.folder", "bcd.folder.c"}),
        ("from bcd.folder import c", {"bcd.folder", "bcd.folder.c"}),
        ("from bcd.errors import UserError", set()),
        ("from abcd.a import f", set()),
    ],
)  # fmt: skip
def test_what_an_import_brings_in(tiny, source, expected):
    files = {name: "def f(): ..." for name in ("a.py", "b.py", "errors.py", "folder/__init__.py", "folder/c.py")}
    assert tiny(source, files)[0] == expected


def test_the_same_name_from_another_module_is_a_change(tiny):
    files = {"a.py": "def f(): return 1", "b.py": "def f(): return 2"}
    source = "from bcd.{} import f\nfrom bcd.{} import f as g\n"
    assert tiny(source.format("a", "b"), files)[1].train != tiny(source.format("b", "a"), files)[1].train


def test_an_import_from_another_library_counts(tiny):
    assert tiny("from math import sin as f", {})[1] != tiny("from math import cos as f", {})[1]


def test_an_import_that_has_no_file_is_an_error(tiny):
    with pytest.raises(ModuleNotFoundError, match=r"no module bcd\.a "):
        tiny("from bcd.a import f", {})


def test_an_unknown_term_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        code.fingerprints("semantic", "scenes", ["nothing"])


# All Pythons agree.


def pythons() -> list[Path]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return [file for minor in (11, 12, 13, 14) for file in sorted(root.glob(f"3.{minor}.*/bin/python3"))]


@pytest.mark.parametrize("python", pythons(), ids=lambda path: path.parts[-3])
def test_every_python_gives_the_same_hashes(python):
    source = f"from bcd.runs import code; print([code.fingerprints(*run) for run in {list(RUNS.values())}])"
    environment = {"PYTHONPATH": str(code.PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, "-c", source], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str([code.fingerprints(*run) for run in RUNS.values()])
