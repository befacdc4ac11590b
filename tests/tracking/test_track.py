import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from support.mlflow_pages import free_port, pages, wait_for
from support.project import ROOT
from support.suite_results import (  # noqa: F401
    change_weight,
    copied,
    finish_run,
    finished_fixture,
    load,
    write_history,
)

from bcd.errors import UserError
from bcd.runs.expand import suite_runs
from bcd.runs.jsonfile import read_as
from bcd.runs.record import RunResult
from bcd.runs.spec import RunSpec
from bcd.tracking import client as mlflow_client
from bcd.tracking import mlflow_run, sync, ui
from bcd.tracking.state import is_copied, note_copied, unsynced
from bcd.train import history

RESULTS = Path("results")
STUDENT = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"
FEW = "semantic/scenes-smoke-few/smoke-student-from-smoke-teacher/bcd/s0"
DEAD = "http://somebody:secret@127.0.0.1:9"


def client():
    import mlflow

    return mlflow.MlflowClient(mlflow_client.tracking_uri(RESULTS))


def search(suite="smoke", **options):
    return client().search_runs([client().get_experiment_by_name(suite).experiment_id], **options)


def mlflow_runs(key=None):
    """The MLflow runs of our runs, without those that hold means."""
    found = [run for run in search() if "bcd.key" in run.data.tags]
    return [run for run in found if key in (None, run.data.tags["bcd.key"])]


def mean_of(method, pair=STUDENT):
    (run,) = (run for run in search() if run.data.tags.get("bcd.mean_of") == f"{pair}/{method}")
    return run


def children(run):
    return search(filter_string=f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")


def one(key):
    (run,) = mlflow_runs(key)
    return run


def curve(run, name="train/loss"):
    return sorted((point.step, point.value) for point in client().get_metric_history(run.info.run_id, name))


def edge_of(key):
    return json.loads((RESULTS / "smoke/runs" / f"{key}.json").read_text())


# --- sync --------------------------------------------------------------------------------------------------


def test_a_run_shows_its_parameters_curves_metrics_tags_and_artifacts(project):
    key = f"{STUDENT}/cwd/s1"
    run, edge = one(key), edge_of(key)
    assert run.info.status == "FINISHED" and run.info.end_time - run.info.start_time == 4000
    recipe = suite_runs(*load())[key].training.recipe
    assert run.data.params["recipe.lr"] == str(recipe.lr) and run.data.params["terms.cwd.term"] == "cwd"
    assert float(run.data.params["terms.cwd.temperature"]) > 0
    assert curve(run) == [(1, 2.0), (2, 1.0)] and curve(run, "train/cwd") == [(1, 0.5), (2, 0.25)]
    assert all(run.data.metrics[name] == value for name, value in edge["metrics"].items())
    assert {step for step, _ in curve(run, "miou")} == {0}
    assert run.info.run_name == "cwd s1 semantic scenes-smoke smoke-student-from-smoke-teacher"
    assert {
        "method": "cwd", "dataset": "scenes-smoke", "pair": "smoke-student-from-smoke-teacher", "task": "semantic",
        "repetition": "1", "labels": "all", "role": "student", "seed": str(edge["seed"]),
    }.items() <= run.data.params.items()  # fmt: skip
    assert run.data.tags["mlflow.source.name"] == f"bcd train --suite smoke {key}"
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
    for tag, value in {
        "method": "cwd", "repetition": "1", "seed": str(edge["seed"]), "store": edge["store"], "tables": "all-labels",
        "teacher.weights_sha256": edge["teacher"]["weights_sha256"], "git.commit": "c0ffee", "data.origin": "generated",
        "data.sha256": edge["data"]["sha256"], "code.train": edge["code"]["train"],
    }.items():  # fmt: skip
        assert run.data.tags[f"bcd.{tag}"] == value, tag
    artifacts = {item.path: item.file_size for item in client().list_artifacts(run.info.run_id)}
    assert artifacts["record.json"] > 100 and artifacts["predictions.png"] > 1000
    used = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
    assert {context: (data.name, data.digest) for context, data in used.items()} == {
        "training": ("scenes-smoke/train", edge["data"]["sha256"][:16]),
        "evaluation": ("scenes-smoke/test", edge["evaluation"]["data_sha256"][:16]),
    }
    assert json.loads(used["training"].source) == {"uri": "data/scenes-smoke"}
    assert json.loads(used["training"].profile) == {"images": 12, "labelled": 12}
    (few,) = (one.dataset for one in one(FEW).inputs.dataset_inputs if one.dataset.name == "scenes-smoke-few/train")
    assert json.loads(few.profile) == {"images": 12, "labelled": 4} and one(FEW).data.params["labels"] == "4"


def test_a_student_says_what_its_teacher_has_and_how_much_of_the_gap_it_closed(project):
    run, none = one(f"{STUDENT}/bcd/s1").data.metrics, edge_of(f"{STUDENT}/none/s1")["metrics"]
    teacher = json.loads((RESULTS / "smoke/teachers/semantic/scenes-smoke/smoke-teacher/none/s0.json").read_text())
    for metric in ("miou", "biou", "conn"):
        top = teacher["metrics"][metric]
        assert run[f"teacher/{metric}"] == top
        assert run[f"gap_closed/{metric}"] == (run[metric] - none[metric]) / (top - none[metric])
    assert not {"teacher/macc", "gap_closed/macc"} & run.keys()  # macc is no main metric
    assert one(f"{STUDENT}/none/s1").data.metrics["gap_closed/miou"] == 0
    teachers = search(filter_string="params.role = 'teacher'")
    assert {run.data.params["method"] for run in teachers} == {"teacher"} and len(teachers) == 3
    assert not any(name.startswith(("teacher/", "gap")) for run in teachers for name in run.data.metrics)


def test_a_gap_that_became_undefined_no_longer_counts(project):
    key = f"{STUDENT}/bcd/s1"
    (RESULTS / "smoke/runs" / STUDENT / "none/s1.json").unlink()
    assert sync.sync(*load()).written == 8  # the students of that seed
    assert math.isnan(one(key).data.metrics["gap_closed/miou"]) and one(key).data.metrics["teacher/miou"] > 0
    assert sync.sync(*load()).written == 0
    assert "gap_closed/miou" not in mean_of("bcd").data.metrics


# --- means -------------------------------------------------------------------------------------------------


def test_the_seeds_of_a_method_are_children_of_their_mean(project):
    run, seeds = mean_of("bcd"), [one(f"{STUDENT}/bcd/s{i}") for i in range(2)]
    assert run.info.run_name == "bcd mean of 2 seeds semantic scenes-smoke smoke-student-from-smoke-teacher"
    assert {child.info.run_id for child in children(run)} == {seed.info.run_id for seed in seeds}
    a, b = (seed.data.metrics for seed in seeds)
    for name in ("miou", "gap_closed/miou", "parameters"):
        assert run.data.metrics[name] == pytest.approx((a[name] + b[name]) / 2)
    assert run.data.metrics["sd/miou"] == pytest.approx(abs(a["miou"] - b["miou"]) / math.sqrt(2))
    assert run.data.metrics["seeds"] == 2 and "sd/parameters" not in run.data.metrics
    assert run.data.params["role"] == "mean" and mean_of("cwd").data.params["terms.cwd.term"] == "cwd"
    assert "repetition" not in run.data.params and run.info.status == "FINISHED"
    means = search(filter_string="params.role = 'mean'")
    pairs = Counter(run.data.params["pair"] for run in means if run.data.params["dataset"] == "scenes-smoke")
    assert pairs[run.data.params["pair"]] == 9  # the methods of the table all-labels, none of them twice
    assert [run.data.params["method"] for run in means][:9] == [row for row in load()[1].tables[0].methods]
    assert not any("mlflow.parentRunId" in run.data.tags for run in search(filter_string="params.role = 'teacher'"))


def test_a_mean_follows_its_seeds_and_goes_with_the_last(project):
    before = mean_of("kd")
    change_metric(f"{STUDENT}/kd/s0", 12.5)
    sync.sync(*load())
    after = mean_of("kd")
    assert after.info.run_id == before.info.run_id
    assert after.data.metrics["miou"] == (12.5 + edge_of(f"{STUDENT}/kd/s1")["metrics"]["miou"]) / 2
    (RESULTS / "smoke/runs" / STUDENT / "kd/s0.json").unlink()
    assert sync.sync(*load()).written == 0
    one_left = mean_of("kd")
    assert "sd/miou" not in one_left.data.metrics and one_left.info.run_name.startswith("kd mean of 1 seed ")
    assert [child.data.tags["bcd.key"] for child in children(one_left)] == [f"{STUDENT}/kd/s1"]
    assert one(f"{STUDENT}/kd/s0").info.run_name.startswith("kd s0 (superseded) ")
    (RESULTS / "smoke/runs" / STUDENT / "kd/s1.json").unlink()
    sync.sync(*load())
    assert not [run for run in search() if run.data.tags.get("bcd.mean_of") == f"{STUDENT}/kd"]
    assert one(f"{STUDENT}/kd/s1").data.tags["bcd.superseded"] == "true" and not children(one_left)


def test_a_deleted_or_doubled_mean_is_mended(project):
    run = mean_of("cwd")
    client().delete_run(run.info.run_id)
    assert sync.sync(*load()).written == 0
    assert mean_of("cwd").info.run_id != run.info.run_id and len(children(mean_of("cwd"))) == 2
    client().restore_run(run.info.run_id)
    sync.sync(*load())
    assert len(children(mean_of("cwd"))) == 2


def test_a_suite_says_what_it_is_and_which_columns_it_opens_with(project):
    tags = client().get_experiment_by_name("smoke").tags
    for text in ("Two steps of everything", "results/smoke/tables/few-labels.md", "results/smoke/report.html"):
        assert text in tags["mlflow.note.content"]
    view = json.loads(tags["mlflow.sharedViewState.bcd"])
    assert {"params.`method`", "metrics.`miou`"} <= set(json.loads(view["state"])["selectedColumns"])
    suite = Path("params/suites/smoke.yaml")
    suite.write_text(suite.read_text().replace("Two steps of everything", "Everything in two steps"))
    assert sync.sync(*load()).written == 0
    assert "Everything in two steps" in client().get_experiment_by_name("smoke").tags["mlflow.note.content"]


# --- sync, again -------------------------------------------------------------------------------------------


def change_metric(key, miou):
    path = RESULTS / "smoke/runs" / f"{key}.json"
    edge = edge_of(key)
    edge["metrics"]["miou"] = miou
    path.write_text(json.dumps(edge))


def test_a_second_sync_writes_nothing(project):
    before = {run.info.run_id: run.to_dictionary() for run in mlflow_runs()}
    report = sync.sync(*load())
    assert (report.written, report.error) == (0, None)
    assert {run.info.run_id: run.to_dictionary() for run in mlflow_runs()} == before
    assert json.loads(Path("results/smoke/tracking.json").read_text()) == {
        "runs": 31,
        "suite": "smoke",
        "synced": True,
        "uri": None,
    }


def test_a_sync_with_nothing_to_do_does_not_import_mlflow(project):
    sync.sync(*load())
    code = (
        "import sys; from bcd.cli.main import app; "
        "app(['track', '--sync', '--suite', 'smoke'], standalone_mode=False); "
        "print([name for name in ('mlflow', 'torch', 'sqlalchemy') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0].endswith("31 runs of suite 'smoke', 0 written") and said[1] == "[]"


def test_a_run_that_is_deleted_in_mlflow_is_written_again(project):
    sync.sync(*load())
    key = f"{STUDENT}/kd/s0"
    client().delete_run(one(key).info.run_id)
    assert sync.sync(*load()).written == 1
    assert one(key).data.tags["bcd.method"] == "kd"


@pytest.mark.parametrize("content", ["", "[]", '{"suites": 3}', '{"suites": {"smoke": "0"}}'])
def test_a_damaged_note_of_the_last_sync_costs_a_look_at_mlflow(project, content):
    (RESULTS / "mlflow.copied.json").write_text(content)
    assert sync.sync(*load()).written == 0
    assert "smoke" in json.loads((RESULTS / "mlflow.copied.json").read_text())["suites"]


def test_a_database_that_may_hold_more_or_less_than_it_shows_is_asked(project):
    sync.sync(*load())
    database = RESULTS / "mlflow.db"
    found = database.stat()
    assert is_copied("none", [], RESULTS) is False
    note_copied("none", [], RESULTS)
    assert is_copied("none", [], RESULTS)
    log = RESULTS / "mlflow.db-wal"
    log.write_bytes(b"")
    assert not is_copied("none", [], RESULTS)
    log.unlink()
    database.write_bytes(bytes(found.st_size))
    os.utime(database, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert not is_copied("none", [], RESULTS)


def test_a_note_that_cannot_be_written_fails_no_sync(project):
    (RESULTS / "mlflow.copied.json").unlink(missing_ok=True)
    (RESULTS / "mlflow.copied.json").mkdir()
    assert sync.sync(*load()).error is None


def test_a_run_that_changed_without_its_spec_updates_its_one_mlflow_run(project):
    key = f"{STUDENT}/kd/s0"
    change_metric(key, 12.5)
    assert sync.sync(*load()).written == 1
    run = one(key)
    assert run.data.metrics["miou"] == 12.5
    assert curve(run) == [(1, 2.0), (2, 1.0)] and len(curve(run, "biou")) == 1


def test_a_changed_spec_gets_a_new_run_and_the_old_one_is_superseded(project):
    key, methods = f"{STUDENT}/pbd/s0", Path("params/methods.yaml")
    before, text = edge_of(key)["store"], methods.read_text()
    old_file = (RESULTS / "smoke/runs" / f"{key}.json").read_text()
    change_weight("pbd")
    params, suite = load()
    run = suite_runs(params, suite)[key]
    teacher = read_as(RunResult, run.teacher.file("smoke", RESULTS))
    after = finish_run(project, "smoke", run, teacher).store
    assert before != after and sync.sync(params, suite).written == 1

    def superseded():
        return {run.data.tags["bcd.store"]: "bcd.superseded" in run.data.tags for run in mlflow_runs(key)}

    def names():
        return {run.data.tags["bcd.store"]: run.info.run_name.split(" semantic ")[0] for run in mlflow_runs(key)}

    assert superseded() == {before: True, after: False}
    assert names() == {before: "pbd s0 (superseded)", after: "pbd s0"}
    assert {child.data.tags["bcd.store"] for child in children(mean_of("pbd"))} == {
        after, edge_of(f"{STUDENT}/pbd/s1")["store"]
    }  # fmt: skip
    methods.write_text(text)
    (RESULTS / "smoke/runs" / f"{key}.json").write_text(old_file)
    assert sync.sync(*load()).written == 0
    assert superseded() == {before: False, after: True}
    assert names() == {before: "pbd s0", after: "pbd s0 (superseded)"}
    assert before in {child.data.tags["bcd.store"] for child in children(mean_of("pbd"))}


def test_unfinished_runs_are_left_out(project):
    (RESULTS / "smoke/runs" / STUDENT / "bcd/s0.json").unlink()
    assert sync.sync(*load()).runs == 30


def test_a_dead_server_is_a_warning_and_a_later_sync_repairs_it(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    report = sync.sync(*load())
    assert "Connection refused" in report.error and report.written == 0
    assert "`bcd track --sync --suite smoke`" in str(report) and "secret" not in str(report)
    assert json.loads(Path("results/smoke/tracking.json").read_text())["synced"] is False
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync.sync(*load()).error is None
    assert json.loads(Path("results/smoke/tracking.json").read_text())["synced"] is True


def test_a_damaged_database_is_a_warning_whose_remedy_works(project):
    (RESULTS / "mlflow.db").write_bytes(b"not a database" * 100)
    report = sync.sync(*load())
    assert "database" in report.error
    assert f"delete {(RESULTS / 'mlflow.db').resolve()} and run `bcd track --sync --suite smoke`" in str(report)
    with pytest.raises(UserError, match="mlflow.db is not a database of this MLflow .* delete it and run"):
        ui.ui(free_port())
    (RESULTS / "mlflow.db").unlink()
    # In a process of its own, as MLflow keeps the connection of one.
    call = [sys.executable, "-m", "bcd.cli", "track", "--sync", "--suite", "smoke"]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip().endswith("31 written")


@pytest.mark.parametrize("moment", ["mlflow.store.db.utils._upgrade_db", "pathlib.Path.replace"])
def test_a_database_that_was_made_by_half_is_made_anew(project, moment):
    (RESULTS / "mlflow.db").unlink()
    module, _, name = moment.rpartition(".")
    killed = f"import os, pathlib, mlflow.store.db.utils; {module}.{name} = lambda *_, **__: os.kill(os.getpid(), 9); "
    program = killed + "from bcd.tracking.client import connected; connected(pathlib.Path('results')).__enter__()"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == -9
    assert list(RESULTS.glob(".mlflow.db.new*")) and not (RESULTS / "mlflow.db").exists()
    assert sync.sync(*load()).written == 31
    assert not list(RESULTS.glob(".mlflow.db.new*"))


def test_what_asks_for_another_sync(project, monkeypatch):
    assert unsynced("smoke", RESULTS) == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    assert "another MLflow" in unsynced("smoke", RESULTS)
    sync.sync(*load())
    assert "could not be written" in unsynced("smoke", RESULTS)
    assert "secret" not in Path("results/smoke/tracking.json").read_text()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync.sync(*load()).written == 0
    assert unsynced("smoke", RESULTS) == ""
    (RESULTS / "mlflow.db").unlink()
    assert "gone" in unsynced("smoke", RESULTS)


def test_a_sync_that_broke_off_is_completed_without_duplicates(project, monkeypatch, tmp_path):
    # Artifacts cannot be written below a file, so this sync fails after curves and metrics of its first run.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    shutil.copy(RESULTS / "mlflow.db", tmp_path / "other.db")
    experiment = client().get_experiment_by_name("smoke")
    client().rename_experiment(experiment.experiment_id, "old")
    (RESULTS / "mlartifacts").rename(RESULTS / "kept")
    (RESULTS / "mlartifacts").write_text("in the way")
    report = sync.sync(*load())
    assert report.written == 0 and len(mlflow_runs()) == 1 and "bcd.synced" not in mlflow_runs()[0].data.tags
    (RESULTS / "mlartifacts").unlink()
    assert sync.sync(*load()).written == 31
    assert set(Counter(run.info.run_name for run in search()).values()) == {1}
    for run in mlflow_runs():
        assert [step for step, _ in curve(run)] == [1, 2] and len(curve(run, "parameters")) == 1


@pytest.mark.slow
def test_syncs_at_the_same_time_make_each_run_once(project):
    (RESULTS / "mlflow.db").unlink()
    program = (
        "from bcd.config.load import load_params; from bcd.config.suites import load_suite;"
        "from bcd.tracking.sync import sync; print(sync(load_params(), load_suite('smoke')))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    texts = sorted(process.communicate()[0].split(", ")[-1].strip() for process in running)
    assert texts == ["0 written", "31 written"]
    assert set(Counter(run.info.run_name for run in search()).values()) == {1}


# --- live --------------------------------------------------------------------------------------------------


def unfinished(key):
    """The folder of a run that looks as if it had just begun."""
    folder = RESULTS / "store" / edge_of(key)["store"]
    record = (folder / "record.json").read_text()
    (folder / "record.json").unlink()
    for run in mlflow_runs(key):
        client().delete_run(run.info.run_id)
    return folder, record


def following(key, folder, **options):
    arguments = f"'smoke', {key!r}, Path({str(folder)!r}), **{options | {'interval': 0.1}}"
    program = f"from pathlib import Path; from bcd.tracking.sync import follow; follow({arguments})"
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)


def test_following_pushes_lines_as_they_come_and_ends_with_the_record(project):
    key = f"{STUDENT}/cwd/s0"
    folder, record = unfinished(key)
    write_history(folder, [1])
    process = following(key, folder)
    wait_for(lambda: mlflow_runs(key) and curve(one(key)) == [(1, 2.0)])
    assert one(key).info.status == "RUNNING"
    write_history(folder, [1, 2])
    wait_for(lambda: curve(one(key)) == [(1, 2.0), (2, 1.0)])
    (folder / "record.json").write_text(record)
    assert process.wait(30) == 0
    assert one(key).info.status == "FINISHED" and "bcd.synced" not in one(key).data.tags
    assert sync.sync(*load()).written == 1
    assert curve(one(key)) == [(1, 2.0), (2, 1.0)] and one(key).data.metrics["miou"] == edge_of(key)["metrics"]["miou"]


def test_a_resumed_run_continues_its_mlflow_run(project):
    key = f"{STUDENT}/cwd/s0"
    folder, record = unfinished(key)
    write_history(folder, range(1, 6))
    nobody = 2**22 + 1  # above Linux's largest process id: the trainer is gone already
    assert following(key, folder, parent=nobody).wait(60) == 0
    assert one(key).info.status == "KILLED"
    # Resuming at step 3 cut two lines and trained on; step 4 and 5 are the same again.
    write_history(folder, range(1, 9))
    (folder / "record.json").write_text(record)
    assert following(key, folder, parent=nobody).wait(60) == 0
    assert [step for step, _ in curve(one(key))] == list(range(1, 9)) and one(key).info.status == "FINISHED"


def test_metrics_on_validation_images_are_curves(project):
    key = f"{STUDENT}/cwd/s0"
    folder, record = unfinished(key)
    lines = [{"step": 1, "miou": 10.0, "conn": 20.0}, {"step": 2, "miou": 30.0}]  # an undefined one is left out
    for known in (1, 2):
        for line in lines[known - 1 : known]:
            history.add_line(folder, line, history.VALIDATION)
        assert following(key, folder, parent=2**22 + 1).wait(60) == 0
        assert curve(one(key), "val/miou") == [(1, 10.0), (2, 30.0)][:known]
    (folder / "record.json").write_text(record)
    sync.sync(*load())
    assert curve(one(key), "val/miou") == [(1, 10.0), (2, 30.0)] and curve(one(key), "val/conn") == [(1, 20.0)]


def test_following_a_dead_server_ends_with_the_run(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    key = f"{STUDENT}/cwd/s0"
    process = following(key, RESULTS / "store" / edge_of(key)["store"])
    assert process.wait(60) == 0
    warning = process.stderr.read()
    assert "Connection refused" in warning and "secret" not in warning and "Traceback" not in warning


def test_long_histories_are_logged_completely(project):
    key = f"{STUDENT}/cwd/s0"
    folder, _ = unfinished(key)
    write_history(folder, range(1, 701))
    sync._push_now("smoke", key, folder, RESULTS, last=False)
    sync._push_now("smoke", key, folder, RESULTS, last=False)
    for name in ("loss", "lr", "task", "cwd"):
        assert [step for step, _ in curve(one(key), f"train/{name}")] == list(range(1, 701))


# --- parts -------------------------------------------------------------------------------------------------


def test_parameters_are_flat_and_short(project):
    training = suite_runs(*load())[f"{STUDENT}/kd/s0"].training
    data = training.data.model_copy(update={"classes": ["x" * 999]})
    spec = RunSpec(replace(training, data=data), "0" * 64)
    flat = mlflow_run.params(mlflow_run.TrackedRun(f"{STUDENT}/kd/s0", "smoke", spec, Path()))
    assert {name: flat[name] for name in ("recipe.lr", "recipe.crop", "terms.kd.weight", "seed", "teacher")} == {
        "recipe.lr": str(training.recipe.lr),
        "recipe.crop": "[40, 32]",
        "terms.kd.weight": str(training.terms[0].weight),
        "seed": str(training.seed),
        "teacher": "null",
    }
    assert len(flat["data.classes"]) == 500 and flat["data.classes"].endswith("…")


# --- ui ----------------------------------------------------------------------------------------------------


def test_the_ui_refuses_a_taken_port_and_a_remote_server(project, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="port .* cannot be used"):
            ui.ui(taken.getsockname()[1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@example.org:5000")
    with pytest.raises(UserError, match="open http://example.org:5000 in a browser"):
        ui.ui(free_port())


def test_the_ui_of_a_folder_that_cannot_be_written_needs_a_database(project):
    block_lock()
    (RESULTS / "mlflow.db").unlink()
    with pytest.raises(UserError, match="mlflow.lock"):
        ui.ui(free_port())


def block_lock():
    """Put a folder into the lock's place: so it is in a project that only others may write."""
    (RESULTS / "mlflow.lock").unlink(missing_ok=True)
    (RESULTS / "mlflow.lock").mkdir()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_ui_serves_and_ends_with_all_its_processes(project, number):
    port = free_port()
    if number == signal.SIGTERM:
        block_lock()  # runs can be looked at all the same
    with pages(port) as process:
        # Every process that has the project's database or port on its command line.
        started = {pid for pid, command in processes().items() if str(project) in command or f"{port}" in command}
        assert len(started) > 1
        os.kill(process.pid, number)
        assert process.wait(60) == 128 + number
        opened = "" if number == signal.SIGTERM else f"/{search()[0].info.experiment_id}/runs"
        address, *said = process.stdout.read().splitlines()
        assert address.startswith(f"runs: http://127.0.0.1:{port}/#/experiments{opened}?workflowType")
        stopped = f"bcd: stopped by {signal.Signals(number).name}; MLflow's pages are closed, its runs are kept"
        assert said == ["MLflow has started; Ctrl-C ends it", stopped], "what MLflow always says is no news"
        assert not started & set(processes())


@pytest.mark.parametrize("server", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_filters_of_the_guide_find_what_they_say(project, monkeypatch, server):
    guide = (ROOT / "docs/guides/tracking.md").read_text()
    filters = re.findall(r"^\| ``(.*)`` \|", guide, re.MULTILINE)
    change_metric(f"{STUDENT}/cwd/s0", 99.0)
    (RESULTS / "smoke/runs" / STUDENT / "kd/s0.json").unlink()
    port = free_port()
    with pages(port) if server else nullcontext():
        if server:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        report = sync.sync(*load())
        assert (report.error, report.written) == (None, 1) and sync.sync(*load()).written == 0
        found = {text: search(filter_string=text.replace("'scenes'", "'scenes-smoke'")) for text in filters}
    gaps = [run for run in found.pop("metrics.`gap_closed/miou` > 0.5") if run.data.params["role"] == "student"]
    assert f"{STUDENT}/cwd/s0" in {run.data.tags["bcd.key"] for run in gaps}
    assert all(run.data.metrics["gap_closed/miou"] > 0.5 for run in gaps)
    assert {text: len(runs) for text, runs in found.items()} == {
        "params.role = 'mean'": 17,
        "params.role = 'student' and tags.`bcd.superseded` IS NULL": 27,
        "params.role = 'teacher'": 3,
        "params.method = 'bcd' and params.role != 'mean' and tags.`bcd.superseded` IS NULL": 6,
        "params.dataset = 'scenes' and params.task = 'semantic'": 28,
        "params.labels != 'all'": 6,
    }


def processes():
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if (text := path.read_bytes()) and path.with_name("stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found[int(path.parent.name)] = text.replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found
