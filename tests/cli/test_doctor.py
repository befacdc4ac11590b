"""`bcd doctor` names what is missing on this machine, with what helps."""

from bcd.cli import doctor


def lines(start: str) -> list[str]:
    return [line for line in doctor.report() if line.startswith(f"missing: {start}")]


def test_a_home_that_cannot_be_written(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project))
    assert not lines("home")
    monkeypatch.setenv("HOME", str(project / "absent"))
    assert "XDG_CACHE_HOME=$PWD/.snakemake/cache snakemake" in lines("home")[0]


def test_a_machine_without_git(project, monkeypatch):
    monkeypatch.setenv("PATH", str(project))
    assert "install it" in lines("git")[0]
    assert "records carry no commit (git: No such file or directory); install git" in lines("commit")[0]
