"""Both DAG engines on the real smoke suite: all of it, then only what a change asks for."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.project import copy_project, in_terminal, run

BIN = Path(sys.executable).parent
TABLES = ("tables/{}.md", "tables/{}.tex", "tables/{}.csv", "tables/{}.json", "figures/{}.png", "figures/{}-panels.png")


def snakemake(project: Path, *arguments: str, check: bool = True) -> str:
    return run(str(BIN / "snakemake"), *arguments, cwd=project, check=check).stdout


def dvc(project: Path, *arguments: str) -> str:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return run(str(BIN / "dvc"), *arguments, cwd=project, PATH=path).stdout


def ran(said: str) -> set[str]:
    """What the jobs of a call were about, without the suite's own."""
    return set(re.findall(r"^Job \d+: (.*)$", said, re.MULTILINE)) - {"suite smoke"}


def records(project: Path) -> set[str]:
    return {path.parent.name for path in project.glob("results/store/*/record.json")}


def contents(project: Path) -> dict[str, bytes]:
    """The bytes of everything that a reader or the DAG looks at."""
    folder = project / "results" / "smoke"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("tables", "figures", "runs", "teachers")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }


METHODS = "params/methods.yaml"
STUDENT = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"


def built_weight(project: Path, method: str) -> float:
    """Weight of a method's first term."""
    return yaml.safe_load((project / METHODS).read_text())[method]["terms"][0]["weight"]


def set_weight(project: Path, method: str, weight: float) -> None:
    """Edit one number of the file, as a user would."""
    head, found, rest = (project / METHODS).read_text().partition(f"\n{method}:\n")
    assert found
    (project / METHODS).write_text(head + found + re.sub(r"weight: [\d.]+", f"weight: {weight}", rest, count=1))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A project whose default suite is `smoke`, built once by a bare `snakemake`."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    (project / "params" / "suite.yaml").write_text("suite: smoke\n")
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    snakemake(project)
    return project


def test_a_bare_snakemake_builds_every_table_and_figure(built):
    for table in ("all-labels", "few-labels"):
        for pattern in TABLES:
            assert (built / "results" / "smoke" / pattern.format(table)).stat().st_size > 0
    for name in ("report.html", "metrics.json", "main.csv"):
        assert (built / "results" / "smoke" / name).stat().st_size > 0
    trace = json.loads((built / "results/smoke/tables/all-labels.json").read_text())
    assert "pbd" in json.dumps(trace)
    assert json.loads((built / "results/smoke/tracking.json").read_text())["synced"] is True


def test_neither_engine_has_anything_left_to_do(built):
    assert "Nothing to be done" in snakemake(built)
    assert "Running stage" not in dvc(built, "repro")
    # A touched file is not a changed one.
    for path in built.glob("results/smoke/runs/**/*.json"):
        path.touch()
    assert "Running stage" not in dvc(built, "repro")


def test_one_weight_trains_one_method_under_either_engine_and_back_again_nothing(built):
    before, tables = records(built), contents(built)
    weights = {method: built_weight(built, method) for method in ("cwd", "pbd")}
    set_weight(built, "cwd", 7.0)
    snakemake(built)
    new = records(built) - before
    methods = {json.loads((built / "results/store" / h / "spec.json").read_text())["terms"][0]["weight"] for h in new}
    assert (len(new), methods) == (2, {7.0})
    changed = contents(built)
    assert {k for k in changed if k.startswith("runs") and changed[k] != tables[k]} == {
        f"runs/semantic/scenes-smoke/smoke-student-from-smoke-teacher/cwd/s{i}.json" for i in range(2)
    }
    assert changed["tables/all-labels.csv"] != tables["tables/all-labels.csv"]
    assert changed["tables/few-labels.csv"] == tables["tables/few-labels.csv"]
    # Back again, and another method's, through the other engine.
    set_weight(built, "cwd", weights["cwd"])
    set_weight(built, "pbd", 5.5)
    said = dvc(built, "repro")
    assert "Running stage 'students'" in said and "Running stage 'teachers'" not in said
    newer = records(built) - before - new
    assert len(newer) == 2
    assert {k for k, content in contents(built).items() if k.startswith("runs") and content != tables[k]} == {
        f"runs/{STUDENT}/pbd/s{i}.json" for i in range(2)
    }
    assert "Nothing to be done" in snakemake(built)
    set_weight(built, "pbd", weights["pbd"])
    assert "Nothing to be done" not in snakemake(built)
    assert records(built) == before | new | newer
    assert contents(built) == tables


def test_a_remote_carries_finished_runs_to_another_clone(built, tmp_path, monkeypatch):
    here, there = shutil.copytree(built, tmp_path / "here", symlinks=True), tmp_path / "there"
    with (here / ".dvc/config").open("a") as settings:
        settings.write(f"    remote = shared\n['remote \"shared\"']\n    url = {tmp_path / 'remote'}\n")
    run(str(BIN / "bcd"), "dvc-commit", cwd=here)
    dvc(here, "push")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    run("git", "add", ".", cwd=here)
    run("git", "commit", "--quiet", "--message", "Smoke", cwd=here)

    run("git", "clone", "--quiet", str(here), str(there), cwd=tmp_path)
    assert not list(there.glob("results/s*"))
    dvc(there, "pull")
    # MLflow's database is not carried: it is a copy of the runs, and made here.
    assert ran(snakemake(there)) == {"runs to MLflow"}
    assert "Nothing to be done" in snakemake(there)
    assert contents(there) == contents(here)
    assert "all-labels" in run(str(BIN / "bcd"), "tables", "--show", cwd=there).stdout
    # The manifest came, the images did not; they are the same when they are fetched.
    manifest = there / "data/scenes-smoke/manifest.json"
    before = manifest.read_bytes()
    run(str(BIN / "bcd"), "fetch", "scenes-smoke", cwd=there)
    assert manifest.read_bytes() == before
    # It knows what its results were made with: a weight asks for its students, not for the teacher.
    set_weight(there, "cwd", 7.0)
    planned = set(re.findall(r"(train_\w+)_[0-9a-f]{6}\b", snakemake(there, "--dry-run")))
    assert planned == {f"train_semantic_scenes_smoke_smoke_student_from_smoke_teacher_s{i}" for i in range(2)}


def forget(project: Path, task: str, *tables: str) -> None:
    """Remove every run of a task, and these tables with their figures."""
    folder = project / "results" / "smoke"
    for edge in [*folder.glob(f"runs/{task}/**/*.json"), *folder.glob(f"teachers/{task}/**/*.json")]:
        shutil.rmtree(project / "results/store" / json.loads(edge.read_text())["store"], ignore_errors=True)
        edge.unlink()
    for pattern in (pattern.format(table) for table in tables for pattern in TABLES):
        (folder / pattern).unlink()


def test_an_engine_killed_at_any_moment_leaves_a_state_that_the_same_command_finishes(built, tmp_path):
    """kill -9 of Snakemake and of everything it started, three times while jobs run; the bytes are those of `built`.

    All of segmentation is made anew: a teacher, four groups of students, tables and panels.
    """
    project = shutil.copytree(built, tmp_path / "killed", symlinks=True)
    forget(project, "semantic", "all-labels", "few-labels")
    for jobs in (1, 2, 3):
        process = subprocess.Popen([BIN / "snakemake"], cwd=project, start_new_session=True, text=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        done = (line for line in process.stderr if line.startswith("Finished job"))
        assert [next(done) for _ in range(jobs)]
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        time.sleep(0.5)  # the kernel ends the jobs, which may still write until then
        assert list(project.glob(".snakemake/locks/*.lock"))
    assert "an earlier snakemake was killed; its lock is removed" in snakemake(project)
    assert contents(project) == contents(built)


def test_a_terminal_shows_what_runs_and_the_time_left_and_is_left_clean(built, tmp_path):
    project = shutil.copytree(built, tmp_path / "project", symlinks=True)
    forget(project, "detection", "detection")
    snake, train = str(BIN / "snakemake"), "train detection/scenes-smoke/smoke-retinanet"
    code, said = in_terminal(snake, cwd=project, until=train)
    assert code != 0 and said.count("\x1b[?25l") == said.count("\x1b[?25h") == 1  # the cursor is back
    assert said.splitlines()[-1].endswith("stopped by SIGINT; finished work is kept, the same command continues")
    code, said = in_terminal(snake, "--cores", "1", cwd=project)
    assert code == 0 and said.count("\x1b[?25l") == said.count("\x1b[?25h") == 1
    assert re.search(rf"\d\d:\d\d:\d\d +\d+ of \d+  {train}/s0: none   \d+:\d\d", said)
    assert re.search(r"suite smoke: \d+ of \d+ jobs done, \d+:\d\d so far, ", said)
    assert "about" in said and "left" in said and "only tables and pages left" in said
    assert re.search(r"bcd: suite smoke: \d+ trainings new, \d+ reused, whose training took .*; this build took ", said)
    for noise in ("Select jobs", "Execute 1 jobs", "Job stats", "Finished jobid"):
        assert noise not in said
    assert contents(project) == contents(built)


def test_dvc_compares_two_states_and_an_experiment_loses_no_finished_run(built, tmp_path):
    project = shutil.copytree(built, tmp_path / "project", symlinks=True)
    for setting in ("user.name=a", "user.email=a@example.org"):
        run("git", "config", *setting.split("="), cwd=project)
    run("git", "add", "-A", cwd=project)
    run("git", "commit", "-qm", "built", cwd=project)
    before = records(project)
    dvc(project, "exp", "run", "-n", "heavier", "-S", "params/methods.yaml:cwd.terms.0.weight=9.0")
    assert len(records(project) - before) == 2 and before < records(project)
    changed = json.loads(dvc(project, "metrics", "diff", "--json"))["results/smoke/metrics.json"]
    assert changed and all(name.startswith("all-labels.cwd.") for name in changed)
    shown = json.loads(dvc(project, "exp", "show", "--json"))
    assert "heavier" in json.dumps(shown)
    dvc(project, "plots", "diff", "-o", "plots")
    page = (project / "plots/index.html").read_text()
    assert "results_smoke_main_csv" in page
    assert all(f"{state}_results_smoke_figures_all-labels.png" in page for state in ("HEAD", "workspace"))


def test_snakemakes_report_has_the_tables_figures_and_page(built):
    snakemake(built, "--report", "report.html")
    report = (built / "report.html").read_text()
    for name in ("all-labels.csv", "all-labels.png", "detection-panels.png", "report.html"):
        assert name in report
    assert "paired to the baseline" in report


def test_a_student_that_fails_leaves_the_files_of_the_others(built, tmp_path):
    project = shutil.copytree(built, tmp_path / "project", symlinks=True)
    before, methods = contents(project), (project / METHODS).read_text()
    set_weight(project, "cwd", "4.0e+38")
    failed = run(str(BIN / "snakemake"), cwd=project, check=False)
    assert failed.returncode == 1
    # In the failed job's log, and once more at the end.
    lines = failed.stdout.splitlines()
    assert any(line.startswith("bcd: ") and f"{STUDENT}/cwd/s0: loss not finite" in line for line in lines)
    assert any(
        line.startswith("results/smoke/logs/") and f"{STUDENT}/cwd/s1: loss not finite" in line for line in lines
    )
    lost = {path for path in before if path not in contents(project)}
    assert {path for path in lost if "/cwd/" in path} == {path for path in before if "/cwd/" in path}
    assert not {path for path in lost if path.startswith(("runs", "teachers")) and "/cwd/" not in path}
    said = run(str(BIN / "bcd"), "tables", "--table", "all-labels", "--partial", cwd=project).stdout
    assert "all-labels.partial.md" in said
    text = (project / "results/smoke/partial/all-labels.partial.md").read_text()
    assert "PARTIAL: 2 of 19 runs are missing" in text and "not run" in text
    (project / METHODS).write_text(methods)
    snakemake(project)
    assert contents(project) == before


def jobs(said: str) -> set[str]:
    """The rules of a dry run without their digests."""
    return set(re.findall(r"^(\w+?)(?:_[0-9a-f]{6})? +\d+$", said, re.MULTILINE)) - {"total", "all"}


def test_a_run_that_was_made_by_hand_with_other_params_is_made_again(built, tmp_path):
    """So is one that was made while its parameter was edited under a running Snakemake: its notes say the same."""
    project = shutil.copytree(built, tmp_path / "project", symlinks=True)
    before, methods = contents(project), (project / METHODS).read_text()
    set_weight(project, "cwd", 5.0)
    run(str(BIN / "bcd"), "train", f"{STUDENT}/cwd/s0", cwd=project)
    (project / METHODS).write_text(methods)
    assert (
        "s0.json (runs were made with other parameters)"
        in run(str(BIN / "bcd"), "tables", "--show", cwd=project).stdout
    )
    assert "not today's: results/smoke/runs" in snakemake(project)
    assert contents(project) == before
    assert "Nothing to be done" in snakemake(project)


def test_results_that_come_without_snakemakes_notes_are_judged_by_what_they_say(built, tmp_path):
    project = shutil.copytree(built, tmp_path / "project", symlinks=True)
    shutil.rmtree(project / ".snakemake")
    # Times are all that Snakemake has to go by then: a table is written again where a test before has touched its runs.
    before = contents(project)
    assert not any(job.startswith("train") for job in ran(snakemake(project)))
    assert contents(project) == before

    def planned(file: str, old: str, new: str) -> set[str]:
        shutil.rmtree(project / ".snakemake")
        text = (project / file).read_text()
        assert old in text
        (project / file).write_text(text.replace(old, new, 1))
        found = jobs(snakemake(project, "--dry-run"))
        (project / file).write_text(text)
        return found

    students = {f"train_semantic_scenes_smoke_smoke_student_from_smoke_teacher_s{i}" for i in range(2)}
    assert planned(METHODS, "term: cwd, taps: [logits], weight: 3", "term: cwd, taps: [logits], weight: 7") == {
        *students, "table", "panels", "report", "summary", "track"
    }  # fmt: skip
    assert planned("params/suites/smoke.yaml", "caption: ", "caption: Of late, ") == {"table", "report", "summary"}
    assert {"data_scenes_smoke", *students} < planned(
        "params/datasets.yaml", "{seed: 7, size: 48}", "{seed: 8, size: 48}"
    )
    (project / f"results/smoke/runs/{STUDENT}/kd/s0.json").unlink()
    assert students & jobs(snakemake(project, "--dry-run"))


def test_a_tracking_server_that_is_down_is_said_and_caught_up(built, tmp_path):
    project = shutil.copytree(built, tmp_path / "project", symlinks=True)
    said = run(str(BIN / "snakemake"), cwd=project, MLFLOW_TRACKING_URI="http://127.0.0.1:9").stdout
    assert "bcd: warning: MLflow at http://127.0.0.1:9 could not be written" in said
    assert ran(snakemake(project)) == {"runs to MLflow"}
    assert "Nothing to be done" in snakemake(project)


def test_a_mistake_in_params_stops_before_anything_runs(built, tmp_path):
    project = copy_project(tmp_path / "wrong")
    text = (project / METHODS).read_text()
    (project / METHODS).write_text(text.replace("term: posterior_boundary", "term: posterior_bundary"))
    said = snakemake(project, "--config", "suite=smoke", check=False)
    assert (
        "params/methods.yaml: pbd: terms.posterior_bundary.term" in said and "did you mean 'posterior_boundary'" in said
    )
    assert not (project / "results").exists()


def test_the_workflow_lints(tmp_path):
    project = copy_project(tmp_path)
    assert "good condition" in snakemake(project, "--lint", "--config", "suite=smoke")
    shutil.rmtree(project)
