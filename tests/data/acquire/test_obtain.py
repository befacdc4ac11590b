"""A dataset's params and its format have to fit before anything is fetched."""

import pytest

from bcd.config.schema.data import Dataset, Generator
from bcd.data.acquire.obtain import obtain
from bcd.data.formats import scenes
from bcd.errors import UserError


def dataset(**changes) -> Dataset:
    fields = {
        "format": "scenes",
        "classes": list(scenes.CLASSES),
        "splits": {"train": 2},
        "licence": "none",
        "source": "here",
    }
    return Dataset(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "scnes"}, "format 'scnes' is not known; did you mean 'scenes'"),
        ({}, "mine: format 'scenes' is generated; give it a generator"),
        ({"format": "voc", "generator": Generator(seed=1, size=32)}, "mine: format 'voc' is not generated; remove gen"),
    ],
)
def test_a_dataset_that_does_not_fit_its_format(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        obtain("mine", dataset(**changes), tmp_path / "mine", mirror_dir=None)
    assert not (tmp_path / "mine").exists()


def test_a_generated_dataset_is_made_once(tmp_path):
    calls = []
    asked = dataset(generator=Generator(seed=1, size=32))
    first = obtain("mine", asked, tmp_path / "mine", mirror_dir=None, progress=lambda *call: calls.append(call))
    assert first.splits == {"train": 2} and first.request == {"splits": {"train": 2}, "seed": 1, "size": 32}
    looks = [("check mine", n, 4) for n in range(1, 5)]  # label maps, then objects
    assert calls == [("mine", 1, 2), ("mine", 2, 2), *looks]
    assert obtain("mine", asked, tmp_path / "mine", mirror_dir=None) == first
