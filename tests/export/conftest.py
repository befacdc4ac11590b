"""A finished run of the suite `smoke`, really trained, once for all tests of exports."""

import contextlib
import shutil
from pathlib import Path

import pytest
from support import smoke
from support.exports import DETECTOR, MASKS, run_of
from support.project import copy_project

from bcd.export import finished


@pytest.fixture(scope="session")
def trained(tmp_path_factory, smoke_data) -> Path:
    """A project whose teacher, detector and mask detector are trained for some steps."""
    folder = copy_project(tmp_path_factory.mktemp("exported"))
    shutil.copytree(smoke_data, folder / "data" / "scenes-smoke")
    with contextlib.chdir(folder):
        for key in (smoke.TEACHER, DETECTOR, MASKS):
            smoke.train(smoke.runs()[key])
    return folder


@pytest.fixture
def segmentor(trained, monkeypatch) -> finished.Finished:
    """The trained teacher of the suite `smoke`, whose project is the current directory."""
    monkeypatch.chdir(trained)
    return run_of(trained, smoke.TEACHER)
