"""docs/guides/add-a-dataset.md, "Without code", followed to the letter in a copy of the project."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support.project import ROOT, copy_project, run

from bcd.config.check import check
from bcd.config.schema.coco import Coco
from bcd.config.schema.data import Dataset
from bcd.config.schema.masks import Masks

GUIDE = (ROOT / "docs/guides/add-a-dataset.md").read_text()
SECTION = re.search(r"^## Without code\n(.*?)^## ", GUIDE, re.MULTILINE | re.DOTALL)[1]
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, _, text in BLOCKS if kind == "sh" for line in text.splitlines()]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with every block of the section in the file that it names, and `~/ponds` beside it."""
    root = copy_project(tmp_path_factory.mktemp("project"))
    for _, target, text in BLOCKS:
        if target:
            with open(root / target, "a") as file:
                file.write(f"\n{text}")
    rng = np.random.default_rng(0)
    for kind in ("photos", "masks"):
        (root / "home/ponds" / kind).mkdir(parents=True)
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(root / f"home/ponds/photos/{number}.jpg")
        water = rng.choice(np.array([0, 255], np.uint8), (24, 32))
        Image.fromarray(water).save(root / f"home/ponds/masks/{number}_mask.png")
    return root


def bcd(project: Path, line: str) -> str:
    program, *words = line.split()
    assert program == "bcd"
    command = (sys.executable, "-m", "bcd.cli", *words)
    return run(*command, cwd=project, HOME=str(project / "home"), PYTHONPATH=str(ROOT)).stdout


def test_the_commands_of_the_section_work(project):
    fetch, plan, build = COMMANDS
    shown = re.search(r"^    (data/ponds: .*)$", SECTION, re.MULTILINE)[1]
    assert shown in bcd(project, fetch).splitlines()
    assert re.search(r"water +2, .* 6, ", bcd(project, "bcd check ponds"))
    assert "data/ponds: 20 files as recorded" in bcd(project, "bcd fetch ponds --verify")
    assert "ponds" in bcd(project, plan)
    assert build == "snakemake --config suite=ponds"


def test_the_reference_has_every_option():
    page = (ROOT / "docs/reference/datasets.md").read_text()
    marks = ("**Own masks.**", "**Own objects.**", "**Mirrors.**")
    for layout, begin, end in zip((Masks, Coco), marks, marks[1:], strict=False):
        table = page[page.index(begin) : page.index(end)]
        assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(layout.model_fields)


def test_the_entry_for_objects_is_one():
    (block,) = re.findall(r"^```yaml\n(birds:.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    layouts = re.findall(r"^\| [\w ]+ \| `({images: .*})` \|$", GUIDE, re.MULTILINE)
    assert len(layouts) == 4
    for layout in map(yaml.safe_load, layouts):
        entry = yaml.safe_load(block)["birds"] | {"coco": layout}
        assert check(Dataset, entry, "birds").coco.annotations == layout["annotations"]
