"""The examples of docs/guides/library.md run, with the packages of `pip install bcd` and no others of ours."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from importlib.util import find_spec

import pytest
from packaging.requirements import Requirement
from support.project import ROOT

PAGE = (ROOT / "docs/guides/library.md").read_text()
EXAMPLES = dict(
    zip(("torch", "lightning", "detectron2"), re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL), strict=True)
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Run before a program: modules that are there are not found, as where they are not installed.
WITHOUT = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_what_they_need(wanted: list[str]) -> set[str]:
    """Distributions by name, and all that those which are installed need without an extra."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in wanted]
    while waiting:
        one = waiting.pop()
        if (name := normal(one.name)) not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
            found.add(name)
            try:
                waiting += map(Requirement, requires(name) or ())
            except PackageNotFoundError:
                assert name not in map(normal, wanted), f"{name} is not installed"
    return found


def modules_of_extras() -> set[str]:
    """The top-level modules here that `pip install bcd` does not bring."""
    base = with_what_they_need(PROJECT["dependencies"]) | {"bcd", "setuptools", "pip"}
    return {name for name, owners in packages_distributions().items() if not base & set(map(normal, owners))}


def run(code: str, missing: set[str]) -> str:
    """What a program prints where the modules `missing` are not installed."""
    prefix = WITHOUT.format(names=sorted(missing))
    done = subprocess.run([sys.executable, "-c", prefix + code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def missing() -> set[str]:
    names = modules_of_extras()
    assert names >= {"snakemake", "dvc", "mlflow", "pandas", "typer", "cv2", "pycocotools"}
    return names


def test_the_loop_in_pytorch_runs_and_the_models_are_there(missing):
    models = "import bcd.models, bcd.models.detection, bcd.models.detection.torchvision_detector\n"
    lines = [ast.literal_eval(line) for line in run(EXAMPLES["torch"] + models, missing).splitlines()]
    assert len(lines) == 3 and all(list(losses) == ["task", "posterior_boundary", "cwd"] for losses in lines)


def test_the_distiller_imports_little(missing):
    """Neither what the base lacks, where it is there, nor libraries of models, which take seconds."""
    loaded = run("import bcd.distill, bcd.losses, sys\nprint(*{name.partition('.')[0] for name in sys.modules})", set())
    assert "torch" in loaded.split()
    assert not {"snakemake", "dvc", "mlflow", "pandas", "typer", "cv2", "torchvision", "timm"} & set(loaded.split())


@pytest.mark.skipif(find_spec("lightning") is None, reason="lightning is not installed: pip install lightning")
def test_the_module_of_lightning_runs():
    check = """
checkpoint = module.state_dict()
assert sorted({name.partition(".")[0] for name in checkpoint}) == ["distiller", "student"]
assert sum(len(tensor) == 64 and tensor.dim() == 4 for tensor in checkpoint.values()) == 1, "the projection alone"
assert sorted(module.trainer.logged_metrics) == ["cwd", "kd", "task"]
print(module.trainer.global_step)
"""
    assert run(EXAMPLES["lightning"] + check, set()).splitlines()[-1] == "3"


@pytest.mark.skipif(find_spec("detectron2") is None, reason="detectron2 is not installed")
def test_the_trainer_of_detectron2_runs():
    check = """
from detectron2.utils.events import EventStorage
with EventStorage():
    losses = model(batches[0])
print(*sorted(losses))
"""
    assert run(EXAMPLES["detectron2"] + check, set()).split() == ["loss_box_reg", "loss_cls", "pkd"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_short(name):
    lines = [line for line in EXAMPLES[name].splitlines() if line.strip()]
    assert len(lines) <= 27 and max(map(len, lines)) <= 120


def test_the_command_line_says_what_it_lacks(missing):
    code = "import sys\nsys.argv = ['bcd', '--help']\nfrom bcd.cli.entry import main\nmain()"
    prefix = WITHOUT.format(names=sorted(missing))
    done = subprocess.run([sys.executable, "-c", prefix + code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("bcd: the command line needs the package typer; say pip install 'bcd[suite]'")


@pytest.mark.slow
def test_a_wheel_has_the_methods(tmp_path):
    """By way of an sdist. The file is a link in the repository, and has to be one that pip installs."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "bcd", "params"):
        subprocess.run(["cp", "-a", ROOT / name, tmp_path], check=True)
    build = "from setuptools import build_meta; build_meta.build_{}('made')"
    subprocess.run([sys.executable, "-c", build.format("sdist")], cwd=tmp_path, check=True, capture_output=True)
    (sdist,) = (tmp_path / "made").glob("bcd-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    subprocess.run([sys.executable, "-c", build.format("wheel")], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = (unpacked / "made").glob("bcd-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("bcd/config/methods.yaml") == (ROOT / "params/methods.yaml").read_bytes()
