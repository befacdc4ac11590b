"""README.md, "Add a dataset", followed to the letter in a copy of the project."""

import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.project import ROOT, copy_project, run

SECTION = re.search(r"^## Add a dataset\n(.*?)^## ", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[1]
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
SPLITS = {"train": 80, "val": 20}
SIZE = (24, 32)
READ = """
import json
from pathlib import Path

from bcd.config.load import load_params
from bcd.config.schema.data import DataUse
from bcd.data.semantic.split import open_split

dataset = load_params().datasets["mine"]
stated = {name: getattr(dataset, name) for name in DataUse.model_fields if name != "skip_annotations"}
for split in ("train", "val"):
    found = open_split(Path("data/mine"), DataUse(**stated), split)
    image, label, name = found.read(3)
    print(json.dumps([len(found), name, image.shape, sorted({*label.ravel().tolist()})]))
"""


def apply(path: Path, text: str) -> None:
    """A whole file is written, an entry of a Python table goes below the table's first line, YAML to the end."""
    if not path.exists():
        path.write_text(text)
    elif path.suffix == ".py":
        lines = path.read_text().splitlines(keepends=True)
        tables = [number for number, line in enumerate(lines) if re.match(r"[A-Z]+\b.*= \{$", line)]
        lines.insert(tables[0] + 1, text)
        path.write_text("".join(lines))
    else:
        path.write_text(path.read_text() + "\n" + text)


def own_data(folder: Path) -> None:
    """What the section says that you have: images/*.jpg, masks/*.png, and the names of each split."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for split, count in SPLITS.items():
        names = [f"{split}-{number}" for number in range(count)]
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(folder / "images" / f"{name}.jpg")
            label = rng.choice(np.array([0, 1, 2, 255], np.uint8), SIZE)
            Image.fromarray(label).save(folder / "masks" / f"{name}.png")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project and its package, with every block of the section in the file that it names."""
    root = copy_project(tmp_path_factory.mktemp("project"))
    shutil.copytree(ROOT / "bcd", root / "bcd", ignore=shutil.ignore_patterns("__pycache__"))
    command = root / "bin" / "bcd"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bcd.cli "$@"\n')
    command.chmod(0o755)
    for _, target, text in BLOCKS:
        if target:
            apply(root / target, text)
    own_data(root)
    return root


def environment(root: Path) -> dict[str, str]:
    folders = [str(root / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {"PYTHONPATH": str(root), "PATH": ":".join(folders)}


def test_the_section_names_the_files():
    targets = [target for _, target, _ in BLOCKS if target]
    assert targets == [
        "params/datasets.yaml",
        "bcd/data/formats/mine.py",
        "bcd/data/formats/__init__.py",
        "params/suites/mine.yaml",
    ]


def test_the_dataset_is_fetched_and_read(project):
    (fetching,) = [text for kind, _, text in BLOCKS if kind == "sh" and "bcd fetch" in text]
    done = run("sh", "-ec", fetching, cwd=project, **environment(project))
    assert "data/mine: 80 train, 20 val; local (mine.zip put in place by hand" in done.stdout
    found = run(sys.executable, "-c", READ, cwd=project, **environment(project))
    assert found.stdout.splitlines() == [
        '[80, "train-3", [24, 32, 3], [0, 1, 2, 255]]',
        '[20, "val-3", [24, 32, 3], [0, 1, 2, 255]]',
    ]


def test_the_suite_can_be_planned(project):
    """Before anything is fetched."""
    planned = run("bcd", "plan", "--suite", "mine", cwd=project, **environment(project))
    assert "mine" in planned.stdout
