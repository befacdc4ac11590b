"""A record says which commit made it; where git does not say, the user hears why, and the remedy works."""

import subprocess

import pytest

from bcd.runs import provenance

AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@b.c")


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder of code without a repository, in which git reads no configuration but this test's."""
    package = tmp_path / "project" / "bcd"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(provenance, "PACKAGE", package)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return package


def git(*arguments, cwd):
    subprocess.run(["git", *AUTHOR, *arguments], cwd=cwd, check=True, capture_output=True)


def test_no_repository_then_no_commit_then_both(code):
    assert provenance.git_state().commit is None
    assert "not a git repository" in provenance.git_trouble() and "`git init`" in provenance.git_trouble()
    git("init", cwd=code.parent)
    assert "commit what is there" in provenance.git_trouble()
    git("add", ".", cwd=code.parent)
    git("commit", "-m", "all", cwd=code.parent)
    assert provenance.git_trouble() is None
    state = provenance.git_state()
    assert len(state.commit) == 40 and state.dirty is False


def test_a_repository_around_the_project_does_not_lend_its_commit(code, tmp_path):
    git("init", cwd=tmp_path)
    git("commit", "--allow-empty", "-m", "another project", cwd=tmp_path)
    assert provenance.git_state().commit is None
    assert "no git repository holds" in provenance.git_trouble()


def test_a_folder_of_another_owner(code, monkeypatch):
    git("init", cwd=code.parent)
    git("add", ".", cwd=code.parent)
    git("commit", "-m", "all", cwd=code.parent)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch
    assert provenance.git_state().commit is None
    assert "dubious ownership" in provenance.git_trouble()
    git("config", "--global", "--add", "safe.directory", str(code.parent), cwd=code)
    assert provenance.git_trouble() is None and provenance.git_state().commit


def test_no_git_at_all(code, monkeypatch):
    monkeypatch.setenv("PATH", str(code))
    assert provenance.git_state().commit is None
    assert provenance.git_trouble() == "records carry no commit (git: No such file or directory); install git"
