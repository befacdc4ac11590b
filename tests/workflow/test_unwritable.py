"""A project in which nothing can be written."""

import os

import pytest

from bcd.cli import snakemake
from bcd.errors import UserError


class Main:
    """A Snakemake that was called by hand."""

    class exec_mode:
        name = "DEFAULT"


def test_a_folder_in_which_snakemake_cannot_write_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: os.fspath(path) != ".snakemake")  # root may write everywhere
    with pytest.raises(UserError, match=r"cannot write .*\.snakemake, where Snakemake keeps its notes; .*`bcd plan`"):
        snakemake.free_dead_lock(Main)
