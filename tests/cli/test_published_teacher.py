"""docs/reference/models.md, "From a file to a checked teacher", followed with a small model and small images."""

import re
import sys
from pathlib import Path

import pytest
import torch
from support.project import ROOT, run

from bcd.config.load import load_params
from bcd.models import build

PAGE = (ROOT / "docs/reference/models.md").read_text()
SECTION = re.search(r"^### From a file to a checked teacher\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)[1]
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, _, text in BLOCKS if kind == "sh" for line in text.splitlines()]
# What the page has, and what a test has time for.
SMALLER = {"cityscapes,": "scenes-smoke,", "/cityscapes/": "/scenes-smoke/", "resnet101": "resnet18",
           "channels: 512": "channels: 16", "aux_channels: 256": "aux_channels: 8"}  # fmt: skip


def smaller(text: str) -> str:
    for theirs, ours in SMALLER.items():
        text = text.replace(theirs, ours)
    return text


def follow(line: str):
    """Run a line of the section."""
    program, *words = smaller(line).partition("#")[0].split()
    assert program == "bcd"
    return run(sys.executable, "-m", "bcd.cli", *words, cwd=Path.cwd(), check=False, PYTHONPATH=str(ROOT))


@pytest.fixture
def teacher(project):
    """The project with the blocks of the section, and the weights file that they name."""
    for _, target, text in BLOCKS:
        if target:
            with open(project / target, "a") as file:
                file.write(f"\n{smaller(text)}")
    model = load_params().models["pspnet-r101-mmseg"]
    path = Path(model.pretrained)
    path.parent.mkdir()
    torch.manual_seed(1)
    built = build(model.model_copy(update={"pretrained": "none"}), 8)
    torch.save({"meta": {}, "state_dict": built.state_dict()}, path)


def test_the_section_works_and_published_numbers_are_checked(teacher):
    fetch, train, evaluate = COMMANDS
    assert fetch == "bcd fetch cityscapes"
    early = follow(evaluate)
    assert early.returncode == 2 and "is not trained; run `bcd train --suite zoo" in early.stdout
    trained = follow(train)
    assert trained.returncode == 0 and "step " not in trained.stdout

    unlike = follow(evaluate)
    measured = float(re.search(r"^miou +(\d+\.\d\d)$", unlike.stdout, re.MULTILINE)[1])
    said = f"published miou 79.76 (mmsegmentation configs/pspnet), measured {measured:.2f}: they differ by "
    assert said in unlike.stdout and "MORE than the tolerance of 0.1\n" in unlike.stdout
    assert unlike.returncode == 2
    assert "\nbcd: semantic/scenes-smoke/pspnet-r101-mmseg/none/s0 is not the published model" in unlike.stdout

    params = Path("params/models.yaml")
    text = params.read_text()
    (line,) = re.findall(r"^    - \{dataset: scenes-smoke, split: val, .*\n", text, re.MULTILINE)

    def with_lines(*changes: tuple[str, str]):
        """`bcd evaluate` with a published line for each change."""
        params.write_text(text.replace(line, "".join(line.replace(theirs, ours) for theirs, ours in changes)))
        return follow(evaluate)

    near, far = ("79.76", f"{measured + 0.05:.2f}"), ("79.76", f"{measured + 0.2:.2f}")
    found = with_lines(near)
    assert found.returncode == 0 and found.stdout.endswith("within the tolerance of 0.1\n")
    found = with_lines(near, far)
    assert found.returncode == 2 and "within the tolerance of 0.1\n" in found.stdout
    assert "they differ by 0.20, MORE than the tolerance of 0.1\n" in found.stdout
    found = with_lines(("split: val", "split: test"))
    assert found.returncode == 0 and "are of scenes-smoke's split 'test', and none of" in found.stdout
    found = with_lines(("miou", "mio"))
    assert found.returncode == 2 and "published: 'mio' is no metric of such a model; did you mean" in found.stdout
