"""docs/reference/datasets.md says of every dataset of archives what params/datasets.yaml does."""

import re

import pytest
from support.project import ROOT

from bcd.config.load import load_params

PAGE = (ROOT / "docs" / "reference" / "datasets.md").read_text()
SECTIONS = dict(block.split("\n", 1) for block in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:])
DATASETS = load_params(ROOT / "params").datasets
FETCHED = {name: dataset for name, dataset in DATASETS.items() if dataset.archives and dataset.files == name}


def test_every_dataset_of_archives_has_a_section():
    assert set(SECTIONS) == set(FETCHED)


@pytest.mark.parametrize("name", FETCHED)
def test_the_section_agrees_with_the_params(name):
    dataset, section = FETCHED[name], SECTIONS[name]
    facts = dict(re.findall(r"^\| ([a-z ]+) \| (.*) \|$", section, flags=re.MULTILINE))
    assert facts["source"] == dataset.source
    assert facts["licence and terms"] == f"{dataset.licence.rstrip('.')}."
    assert facts["splits"] == ", ".join(f"{count} {split}" for split, count in dataset.splits.items())
    assert facts["classes"] == str(len(dataset.classes))
    rows = [row for row in section.splitlines() if row.startswith("| `")]
    assert rows == [
        f"| `{archive.archive}` | {archive.url or 'none'} | {archive.bytes or 'not published'} | {published(archive)} |"
        for archive in dataset.archives
    ]


def published(archive):
    for kind in ("sha256", "md5"):
        if getattr(archive, kind):
            return f"{kind} `{getattr(archive, kind)}`"
    return "not published"
