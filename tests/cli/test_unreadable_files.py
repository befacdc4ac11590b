"""Whatever lies in a file's place, a command ends with one sentence that names the file, and never with a traceback."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from support.suite_results import copied, finished_fixture  # noqa: F401

from bcd.cli.entry import main
from bcd.report.panels import objects, semantic

TEACHER = "semantic/scenes-smoke/smoke-teacher/none/s0"
RUN = "semantic/scenes-smoke/smoke-student-from-smoke-teacher/bcd/s0"
DATA, SMOKE = "data/scenes-smoke", ("--suite", "smoke")
TABLE = (*SMOKE, "--table", "all-labels")
PARAMS = [
    f"params/{name}.yaml" for name in ("datasets", "models", "methods", "recipes", "suite", "suites/scenes")
]  # fmt: skip
EDGES = [f"results/smoke/runs/{RUN}.json", f"results/smoke/teachers/{TEACHER}.json"]
MANIFEST, FILES, IMAGE = f"{DATA}/manifest.json", f"{DATA}/files.csv", f"{DATA}/images/test/00000.png"
RECORD, ROWS, PREDICTIONS = "STORE/record.json", "STORE/EVAL.npz", "STORE/EVAL-predictions.npz"
# Command -> the files that it reads; every command reads params in the same way.
READS = {
    ("plan",): PARAMS,
    ("plan", *SMOKE): [EDGES[0], MANIFEST],
    ("tables", *TABLE): [*EDGES, ROWS],
    ("tables", *TABLE, "--show"): ["results/smoke/tables/all-labels.json"],
    ("panels", *TABLE): [FILES, PREDICTIONS, IMAGE],
    ("train", *SMOKE, RUN): [EDGES[1], MANIFEST, FILES, RECORD],
    ("evaluate", *SMOKE, RUN): [RECORD],
    ("fetch", "scenes-smoke", "--verify"): [MANIFEST, FILES, IMAGE],
    ("fetch", "scenes-smoke"): [MANIFEST, FILES],
    ("fetch", "camvid", "--mirror", "mirror"): ["mirror/MANIFEST.csv", "mirror/camvid/CamVid.zip"],
    ("track", "--sync", *SMOKE): [RECORD],
    ("doctor",): [PARAMS[0]],
    ("dvc-commit",): [PARAMS[4]],
}
# Files that are made again where they hold something else: no error is needed.
MADE_AGAIN = {("fetch", MANIFEST), ("fetch", FILES)}
DAMAGE = {
    "folder": None,
    "latin-1": "[d\xe9j\xe0 vu]".encode("latin-1"),
    "a list": b"[]",
    "empty": b"",
    "unreadable": b"{}",
}
CASES = [(command, file) for command, files in READS.items() for file in files]


@pytest.fixture(scope="module")
def built(tmp_path_factory, finished):  # noqa: F811
    """A finished project with tables and a mirror; each test puts back what it damages."""
    root = copied(finished, tmp_path_factory.mktemp("built") / "project")
    (root / "mirror" / "camvid").mkdir(parents=True)
    (root / "mirror" / "camvid" / "CamVid.zip").write_bytes(b"PK")
    (root / "mirror" / "MANIFEST.csv").write_text("archive,bytes,sha256,notes\ncamvid/CamVid.zip,2,0,none\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert status_of(patch, "tables", *SMOKE) == 0
    return root


def status_of(patch, *command) -> int:
    for module in (objects, semantic):
        module.opened.cache_clear()  # what another command of this process has opened
    patch.setattr(sys, "argv", ["bcd", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def place_of(file: str) -> Path:
    """Where a file lies whose name depends on hashes."""
    edge = json.loads(Path(EDGES[0]).read_text())
    store = file.replace("STORE", f"results/store/{edge['store']}")
    return Path(store.replace("EVAL", f"eval-{edge['evaluation']['hash']}"))


def damage(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir(parents=True)
    else:
        path.write_bytes(DAMAGE[kind])
        path.chmod(0 if kind == "unreadable" else 0o644)


@pytest.fixture
def damaged(built, tmp_path, monkeypatch):
    """Put something else in a file's place; everything is put back afterwards."""
    monkeypatch.chdir(built)
    moved = []

    def replace(file: str, kind: str) -> Path:
        path = place_of(file)
        moved.append(path)
        if path.exists():
            path.rename(tmp_path / "kept")
        damage(path, kind)
        return path

    yield replace
    for path in moved:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (tmp_path / "kept").exists():
            (tmp_path / "kept").rename(path)


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize(("command", "file"), CASES, ids=[f"{'-'.join(c[:1])} {f}" for c, f in CASES])
def test_one_sentence_names_the_file(damaged, monkeypatch, capfd, command, file, kind):
    path = damaged(file, kind)
    if kind == "unreadable" and os.access(path, os.R_OK):
        pytest.skip("nothing is unreadable to root")
    status = status_of(monkeypatch, *command)
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out
    if status == 0:
        assert (command[0], file) in MADE_AGAIN
        return
    assert status == 2
    last = said.err.splitlines()[-1]
    assert last.startswith("bcd: ") and str(path) in last


@pytest.mark.parametrize("kind", ["a list", "empty", "latin-1"])
def test_the_remedy_of_a_damaged_manifest_works(built, tmp_path, monkeypatch, capfd, kind):
    monkeypatch.chdir(copied(built, tmp_path / "project"))
    damage(Path(MANIFEST), kind)
    assert status_of(monkeypatch, "plan", *SMOKE) == 2
    assert "run `bcd fetch scenes-smoke`" in capfd.readouterr().err
    assert status_of(monkeypatch, "fetch", "scenes-smoke") == 0
    assert status_of(monkeypatch, "plan", *SMOKE) == 0
    assert "31 done" in capfd.readouterr().out
