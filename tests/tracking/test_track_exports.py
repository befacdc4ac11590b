"""Students that were evaluated as exported files, too: each is one MLflow run, whatever forms it was measured in."""

import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from support.exports import chip_suite
from support.suite_results import (  # noqa: F401
    copied,
    exported,
    finish_run,
    finish_suite,
    finished_fixture,
    latency,
    load,
)

from bcd.cli import main
from bcd.export.sidecar import Cpu, Metadata, Parity, Sidecar, View, sidecar_path
from bcd.runs.expand import suite_runs
from bcd.runs.jsonfile import dump, read_as
from bcd.runs.record import Report, RunResult
from bcd.runs.resolve import overridden
from bcd.tracking import client as mlflow_client
from bcd.tracking import sync
from bcd.tracking.mlflow_run import TrackedRun
from bcd.tracking.push import push
from bcd.tracking.state import is_copied

RESULTS = Path("results")
STUDENT = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"
KEY = f"{STUDENT}/cwd/s0"
METRICS = ("miou", "biou")


@pytest.fixture(scope="module")
def synced(tmp_path_factory, finished):
    """A project whose suite `chip` is finished and was synced once."""
    root = copied(finished, tmp_path_factory.mktemp("synced") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Path("params/suites/chip.yaml").write_text(chip_suite(("onnx", "onnx-int8"), metrics=METRICS))
        finish_suite(root, "chip")
        report = sync.sync(*load("chip"))
        assert report.error is None and report.written == report.runs == 3
    return root


def client():
    import mlflow

    return mlflow.MlflowClient(mlflow_client.tracking_uri(RESULTS))


def experiment():
    return client().get_experiment_by_name("chip").experiment_id


def mlflow_runs(**options):
    """By key, without those that hold means."""
    found = client().search_runs([experiment()], **options)
    return {run.data.tags["bcd.key"]: run for run in found if "bcd.key" in run.data.tags}


def mean_metrics():
    (run,) = client().search_runs([experiment()], filter_string=f"tags.`bcd.mean_of` = '{KEY.removesuffix('/s0')}'")
    return run.data.metrics


def file(key):
    return suite_runs(*load("chip"))[key].file("chip", RESULTS)


def edge(key):
    return read_as(RunResult, file(key))


def form(name, key=KEY):
    return key.replace("/s0", f"@{name}/s0")


def shown(run, name):
    """What the MLflow run says of one exported form: its metrics, and its tags."""
    metrics, tags = f"chip/{name}/", f"bcd.chip.{name}."
    return (
        {k.removeprefix(metrics): v for k, v in run.data.metrics.items() if k.startswith(metrics)},
        {k.removeprefix(tags): v for k, v in run.data.tags.items() if k.startswith(tags)},
    )


def test_a_student_is_one_run_with_the_metrics_of_its_exports(project):
    runs = mlflow_runs()
    assert set(runs) == {"semantic/scenes-smoke/smoke-teacher/none/s0", f"{STUDENT}/none/s0", KEY}
    run, plain = runs[KEY], edge(KEY)
    assert all(run.data.metrics[name] == value for name, value in plain.metrics.items())
    assert run.data.tags["bcd.exports"] == "onnx, onnx-int8" and run.data.tags["bcd.tables"] == "chip"
    for name in ("onnx", "onnx-int8"):
        result, facts = edge(form(name)), exported(name)
        metrics, tags = shown(run, name)
        assert metrics == result.metrics | {
            "bytes": facts.bytes, "largest": facts.largest, "changed": facts.changed, "time": latency(name).ratio
        }  # fmt: skip
        assert tags.pop("calibration", "") == ("4" if name == "onnx-int8" else "")
        assert tags.pop("scheme", "") == facts.scheme
        assert tags == {
            "evaluation": result.evaluation.hash, "code.evaluate": result.code.evaluate, "split": "test",
            "files": ", ".join(facts.files), "toolchain": "onnx 1.2, onnxruntime 3.4", "opset": "20",
            "cpu_flags": "avx2",
        }  # fmt: skip
    assert shown(runs["semantic/scenes-smoke/smoke-teacher/none/s0"], "onnx") == ({}, {})
    assert mean_metrics()["chip/onnx/miou"] == edge(form("onnx")).metrics["miou"]


def test_a_time_that_was_measured_again_is_copied(project):
    """No small JSON says it: it differs between two executions."""
    found = edge(form("onnx"))
    path = RESULTS / "store" / found.store / f"eval-{found.evaluation.hash}.json"
    report = read_as(Report, path)
    path.write_text(dump(report.model_copy(update={"latency": report.latency.model_copy(update={"ratio": 0.5})})))
    assert sync.sync(*load("chip")).written == 1
    assert mlflow_runs()[KEY].data.metrics["chip/onnx/time"] == 0.5 == mean_metrics()["chip/onnx/time"]
    path.unlink()  # as in results that were carried without it
    assert sync.sync(*load("chip")).error is None


def models(run):
    found = client().search_logged_models([experiment()], filter_string=f"source_run_id = '{run.info.run_id}'")
    return {model.tags["bcd.export"]: model for model in found}


def test_exported_files_are_models_of_the_run_with_their_signature(project):
    run = mlflow_runs()[KEY]
    before = models(run)
    assert {form: model.name for form, model in before.items()} == {
        "onnx": "cwd-s0-onnx",
        "onnx-int8": "cwd-s0-onnx-int8",
    }
    assert {out.model_id for out in run.outputs.model_outputs} == {model.model_id for model in before.values()}
    assert all(model.status.name == "READY" for model in before.values())
    # Another file of one form, with the JSON that an export leaves beside it.
    result = edge(form("onnx"))
    facts = result.evaluation.exported.model_copy(update={"files": {"export-new.onnx": "9" * 64}})
    evaluation = result.evaluation.model_copy(update={"exported": facts})
    file(form("onnx")).write_text(dump(result.model_copy(update={"evaluation": evaluation})))
    sidecar_path(RESULTS / "store" / result.store / "export-new.onnx").write_text(dump(sidecar(result, facts)))
    assert sync.sync(*load("chip")).written == 1
    after = models(run)
    assert after["onnx-int8"].model_id == before["onnx-int8"].model_id
    assert after["onnx"].model_id != before["onnx"].model_id and len(after) == 2
    assert after["onnx"].tags["bcd.file"].endswith("export-new.onnx")
    import mlflow

    mlflow.set_tracking_uri(mlflow_client.tracking_uri(RESULTS))
    signature = mlflow.models.get_model_info(f"models:/{after['onnx'].model_id}").signature
    assert signature.inputs.inputs[0].shape == (-1, 3, 48, 64)
    assert [(one.name, one.shape) for one in signature.outputs.inputs] == [("logits", (-1, 2, 48, 64))]
    assert sync.sync(*load("chip")).written == 0


def sidecar(result, facts):
    view = View(mean=[0.0] * 3, std=[1.0] * 3, height=48, width=64)
    said = Metadata(
        task="semantic", key=KEY, run=result.store, weights_sha256="", model="smoke-student", format="onnx",
        precision="float32", dynamic=False, classes=["a", "b"], palette=[[0, 0, 0]] * 2, view=view, outputs=["logits"],
    )  # fmt: skip
    return Sidecar(
        metadata=said, files=facts.files, bytes=1, toolchain={}, opset=20, calibration=None, cpu=Cpu(name="", flags=[]),
        parity=Parity(images=[], sizes=[], largest=0.0, changed=0.0, limit=None),
    )  # fmt: skip


def test_only_a_changed_export_updates_its_student(project):
    before, result = mlflow_runs()[KEY], edge(form("onnx-int8"))
    file(form("onnx-int8")).write_text(dump(result.model_copy(update={"metrics": {"miou": 12.5}})))
    assert sync.sync(*load("chip")).written == 1
    after = mlflow_runs()[KEY]
    assert after.info.run_id == before.info.run_id and len(mlflow_runs()) == 3
    changed = {k for k, v in after.data.metrics.items() if before.data.metrics[k] != v}
    assert changed == {"chip/onnx-int8/miou"} and after.data.metrics["chip/onnx-int8/miou"] == 12.5
    assert len(client().get_metric_history(after.info.run_id, "chip/onnx/miou")) == 1
    assert mean_metrics()["chip/onnx-int8/miou"] == 12.5
    assert sync.sync(*load("chip")).written == 0


def test_a_second_sync_has_nothing_to_do(project):
    before = {name: run.to_dictionary() for name, run in mlflow_runs().items()}
    sync.sync(*load("chip"))
    state = sync._state(load("chip")[1], sync._finished(*load("chip"), RESULTS, Path("data")))
    assert is_copied("chip", state, RESULTS)
    assert sync.sync(*load("chip")).written == 0
    assert {name: run.to_dictionary() for name, run in mlflow_runs().items()} == before


def push_as_once(key):
    """Write an edge as an MLflow run of its own, as syncs did before exports belonged to their student."""
    result = edge(key)
    folder = RESULTS / "store" / result.store
    record = sync.store.record(folder)
    run = push(client(), experiment(), None, TrackedRun(key, "chip", record.spec, folder, record, result))
    client().delete_tag(run, "bcd.layout")
    client().log_metric(run, "miou", result.metrics["miou"], step=2)


def test_one_sync_writes_the_runs_of_an_older_version_anew(project):
    from mlflow.entities import ViewType

    for run in client().search_runs([experiment()]):
        client().delete_run(run.info.run_id)
    for key in suite_runs(*load("chip")):
        push_as_once(key)
    old = mlflow_runs()
    assert len(old) == 7 and form("onnx") in old
    report = sync.sync(*load("chip"))
    assert (report.written, report.error) == (3, None)
    assert set(mlflow_runs()) == {key for key in old if "@" not in key}
    run = mlflow_runs()[KEY]
    assert {point.step for point in client().get_metric_history(run.info.run_id, "miou")} == {0}
    assert run.data.metrics["chip/onnx/miou"] == edge(form("onnx")).metrics["miou"]
    deleted = client().search_runs([experiment()], run_view_type=ViewType.DELETED_ONLY)
    assert {run.info.run_id for run in old.values()} <= {run.info.run_id for run in deleted}
    assert sync.sync(*load("chip")).written == 0


def test_an_export_that_left_the_suite_no_longer_counts(project):
    Path("params/suites/chip.yaml").write_text(chip_suite(("onnx",), metrics=METRICS))
    assert sync.sync(*load("chip")).written == 2
    run = mlflow_runs()[KEY]
    assert run.data.tags["bcd.exports"] == "onnx"
    assert shown(run, "onnx-int8")[1] == {} and shown(run, "onnx")[1]["opset"] == "20"
    Path("params/suites/chip.yaml").write_text(chip_suite((), metrics=METRICS))
    assert sync.sync(*load("chip")).written == 2
    assert not any(tag.startswith(("bcd.chip", "bcd.exports")) for tag in mlflow_runs()[KEY].data.tags)


def test_a_student_without_a_result_in_pytorch_shows_its_exports(project):
    client().delete_run(mlflow_runs()[KEY].info.run_id)
    moved = file(KEY).read_text()
    file(KEY).unlink()
    report = sync.sync(*load("chip"))
    assert (report.runs, report.written) == (3, 1)
    run = mlflow_runs()[KEY]
    assert run.info.status == "FINISHED" and run.data.params["terms.cwd.term"] == "cwd"
    assert "miou" not in run.data.metrics and "chip/onnx/miou" in run.data.metrics
    assert "gap_closed/miou" not in run.data.metrics and "teacher/miou" in run.data.metrics
    assert run.data.tags["bcd.weights_sha256"] == edge(form("onnx")).weights_sha256
    assert "bcd.evaluation" not in run.data.tags
    assert {item.path for item in client().list_artifacts(run.info.run_id)} == {"record.json"}
    file(KEY).write_text(moved)
    assert sync.sync(*load("chip")).written == 1
    assert mlflow_runs()[KEY].data.metrics["miou"] == edge(KEY).metrics["miou"]


def test_exports_of_another_training_than_pytorchs_are_left_out(project):
    methods = Path("params/methods.yaml")
    text = methods.read_text()
    head, found, rest = text.partition("\ncwd:\n")
    methods.write_text(head + found + rest.replace("weight: 3", "weight: 7", 1))
    params, suite = load("chip")
    run = suite_runs(params, suite)[KEY]
    after = finish_run(project, "chip", run, read_as(RunResult, run.teacher.file("chip", RESULTS)))
    assert after.store != edge(form("onnx")).store
    assert sync.sync(params, suite).written == 1
    (run,) = (run for run in client().search_runs([experiment()]) if run.data.tags.get("bcd.store") == after.store)
    assert "miou" in run.data.metrics and "bcd.exports" not in run.data.tags
    assert not any(name.startswith("chip/") for name in run.data.metrics)


def followers():
    """Processes that follow a training of this process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            alive = path.with_name("stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and b"follow" in words and str(os.getpid()).encode() in words:
                found.append(words)
    return found


def test_live_tracking_follows_a_student_once_for_all_its_forms(project):
    from mlflow.entities import ViewType

    for run in mlflow_runs().values():
        client().set_tag(run.info.run_id, "bcd.key", f"{KEY}?before")
        client().delete_run(run.info.run_id)
    runs = [run for key, run in suite_runs(*load("chip")).items() if key.startswith(f"{STUDENT}/cwd")]
    assert [run.key for run in runs] == [KEY, form("onnx"), form("onnx-int8")]
    live = [replace(run, runtime=run.runtime.model_copy(update={"live_tracking": True})) for run in runs]
    main._follow_live("chip", live)
    end = time.monotonic() + 300
    while followers():
        assert time.monotonic() < end
        time.sleep(0.5)
    assert set(mlflow_runs(run_view_type=ViewType.ALL)) == {f"{KEY}?before", KEY}
    assert sync.sync(*load("chip")).written == 3
    assert "chip/onnx/miou" in mlflow_runs()[KEY].data.metrics


def test_the_key_in_pytorch_of_an_export_is_that_of_its_student(project):
    runs = suite_runs(*load("chip"))
    assert {runs[form(name)].key_in_pytorch for name in ("onnx", "onnx-int8")} == {KEY}
    assert runs[KEY].key_in_pytorch == KEY
    changed = overridden(runs[form("onnx")], {"recipe.lr": 0.5})
    assert changed.key_in_pytorch == overridden(runs[KEY], {"recipe.lr": 0.5}).key
