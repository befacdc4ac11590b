"""An evaluation is of the weights and data that it names, a result what its record says, and weights are numbers."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from support.smoke import PAIR, TEACHER, folder, renamed, result_of, runs, say, train

from bcd.config.load import load_params
from bcd.data.acquire import manifest
from bcd.data.acquire.obtain import accepted
from bcd.errors import UserError
from bcd.files import sha256_file
from bcd.losses import TERMS
from bcd.report.panels import run_panel
from bcd.runs import status, store, usable
from bcd.runs.jsonfile import dump, read_as
from bcd.runs.record import Report, RunResult
from bcd.runs.resolve import overridden
from bcd.runs.run import Run
from bcd.train import job
from bcd.train.learner import Learner

ROOT = Path("data/scenes-smoke")
KD, NONE = f"{PAIR}/kd/s0", f"{PAIR}/none/s0"


@pytest.fixture
def teacher(project) -> RunResult:
    return train(runs()[TEACHER])["none"]


def status_of(run: Run) -> status.Status:
    return status.judge_all("smoke", [run])[run.key]


def report_of(result: RunResult) -> Path:
    return folder(result) / f"eval-{result.evaluation.hash}.json"


def test_new_weights_are_evaluated_anew(teacher, monkeypatch):
    """Row 37 of the faults: the record is deleted after a loss was edited, as the sentence about it says."""
    run = runs()[KD]
    before = train(run)["kd"]
    (folder(before) / "record.json").write_text("{")
    with pytest.raises(UserError, match="record.json is not valid JSON .*; delete it and run `snakemake`"):
        train(run)
    (folder(before) / "record.json").unlink()
    term = TERMS["kd"]
    monkeypatch.setitem(TERMS, "kd", replace(term, loss=lambda *maps, **options: 300 * term.loss(*maps, **options)))
    after = train(run)["kd"]
    assert after.store == before.store and after.weights_sha256 != before.weights_sha256
    assert read_as(Report, report_of(after)).weights_sha256 == after.weights_sha256
    kept = after.metrics
    for path in folder(after).glob("eval-*"):
        path.unlink()
    assert train(run)["kd"].metrics == kept != before.metrics


def test_an_evaluation_that_does_not_name_its_weights_is_made_again(teacher):
    path = report_of(teacher)
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps({k: v for k, v in content.items() if k != "weights_sha256"} | {"metrics": {"miou": 99.0}})
    )
    lines: list[str] = []
    job.run_group("smoke", [runs()[TEACHER]], lines.append)
    assert result_of(runs()[TEACHER]) == teacher
    assert any("does not say of which weights it is: evaluating again" in line for line in lines)


def test_a_number_that_was_changed_in_a_report_is_measured_again(teacher):
    path = report_of(teacher)
    content = json.loads(path.read_text())
    content["metrics"]["miou"] += 90
    path.write_text(json.dumps(content))
    assert job.evaluate_finished("smoke", runs()[TEACHER], say) == teacher.metrics


def test_undefined_numbers_are_null_in_files_of_ours(teacher):
    undefined = teacher.model_copy(update={"metrics": {"miou": 1.5, "biou": float("nan")}})
    path = Path("undefined.json")
    path.write_text(dump(undefined))
    assert json.loads(path.read_text())["metrics"] == {"miou": 1.5, "biou": None} and "NaN" not in path.read_text()
    assert math.isnan(read_as(RunResult, path).metrics["biou"])


def test_a_damaged_evaluation_is_measured_again_by_the_command_that_the_sentence_names(teacher):
    """Rows 38 to 40: each file of it, in each way; what reads it meanwhile says one sentence."""
    run = runs()[TEACHER]
    stem = report_of(teacher).with_suffix("")
    rows, predictions = stem.with_suffix(".npz"), stem.with_name(f"{stem.name}-predictions.npz")
    good = {path: path.read_bytes() for path in (report_of(teacher), rows, predictions)}
    pickled = Path("pickled.npz")
    np.savez(pickled, names=np.array([{}]))
    for path, whole in good.items():
        for bad in (None, b"", b"{}", b"[]", whole[: len(whole) // 2], pickled.read_bytes()):
            path.unlink() if bad is None else path.write_bytes(bad)
            for damaged, read in ((rows, usable.read_rows), (predictions, run_panel)):
                if path == damaged:
                    with pytest.raises(UserError, match=f"{path} .*run `bcd evaluate --suite smoke {TEACHER}` to") as e:
                        read(status_of(run))
                    assert "\n" not in str(e.value)
            assert job.evaluate_finished("smoke", run, say) == teacher.metrics
            assert {file: file.read_bytes() for file in good if file.suffix == ".npz"} == {
                file: content for file, content in good.items() if file.suffix == ".npz"
            }
            assert read_as(Report, report_of(teacher)).rows_sha256 == teacher.evaluation.rows_sha256
    assert result_of(run) == teacher


def test_the_record_and_the_weights_of_another_run_are_refused(teacher):
    """Row 36: in the folder of a run, alone and as a whole folder."""
    found = train(runs()[NONE], runs()[KD])
    mine, other = folder(found["none"]), folder(found["kd"])
    edge = runs()[NONE].file("smoke").read_text()
    for whole in (False, True):
        runs()[NONE].file("smoke").unlink()
        if whole:
            shutil.rmtree(mine)
            shutil.copytree(other, mine)
        else:
            for path in mine.glob("eval-*"):
                path.unlink()
            for name in ("record.json", "model.safetensors"):
                shutil.copy(other / name, mine / name)
        with pytest.raises(UserError, match=f"record of another run, {other.name}; delete the folder {mine} and run"):
            train(runs()[NONE])
        shutil.rmtree(mine)
        train(runs()[NONE])
        assert runs()[NONE].file("smoke").read_text() == edge


def test_a_teachers_small_json_that_names_other_weights_is_refused(teacher):
    """Row 41; and weights that are no longer those of the record."""
    run = runs()[TEACHER]
    file = run.file("smoke")
    edge = file.read_text()
    file.write_text(edge.replace(teacher.weights_sha256, "0" * 64))
    with pytest.raises(UserError, match=f"{file} is not today's .*; delete it and run `snakemake teachers"):
        train(runs()[KD])
    file.unlink()
    train(run)
    assert file.read_text() == edge
    path = folder(teacher) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=f"missing or changed .*; delete the folder {folder(teacher)} and run"):
        train(runs()[KD])
    shutil.rmtree(folder(teacher))
    with pytest.raises(UserError, match=f"{file} is not today's .*; delete it and run `snakemake teachers"):
        train(runs()[KD])
    file.unlink()
    train(run)
    assert file.read_text() == edge and train(runs()[KD])["kd"].teacher.weights_sha256 == teacher.weights_sha256


@pytest.mark.parametrize("lr", ["1.0e+38", "3.0e+19"])
def test_weights_that_are_not_finite_are_a_failure(project, lr):
    """Row 44: after the last step nothing is computed with them that would show it."""
    run = overridden(runs()[TEACHER], {"recipe.lr": float(lr), "recipe.steps": 1, "recipe.warmup": 0})
    run = renamed(run, TEACHER)
    with pytest.raises(UserError, match=r"not finite .*; choose a smaller lr"):
        train(run)
    assert not run.file("smoke").exists()


def test_a_running_statistic_that_is_not_finite_is_a_failure(project, monkeypatch):
    run = runs()[TEACHER]
    entry = job.resolve("smoke", run).folder()
    step = Learner.train_step

    def spoiled(learner, *arguments):
        step(learner, *arguments)
        next(buffer for name, buffer in learner.student.named_buffers() if "running_var" in name)[0] = float("inf")

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "train_step", spoiled)
        with pytest.raises(
            UserError, match=r"1 of \d+ tensors of the weights are not finite after step 2, first .*var"
        ):
            train(run)
    assert not (entry / "record.json").exists() and not (entry / "state.pt").exists()
    found = status_of(run)
    assert found.verdict is status.Verdict.FAILED and "last finite state is that of step 0" in found.note
    assert train(run)["none"].metrics and not (entry / "failure.json").exists()


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1e30, "the model's outputs are not finite for .*: its training has"),
        (float("nan"), "holds .* that are not finite"),
    ],
)
def test_outputs_that_are_not_finite_have_no_metrics(teacher, factor, said):
    """Weights may be finite and what they give is not; nor do older records know that theirs are not."""
    entry = folder(teacher)
    weights = load_file(entry / "model.safetensors")
    save_file({name: tensor * factor for name, tensor in weights.items()}, entry / "model.safetensors")
    finished = store.record(entry)
    changed = finished.weights.model_copy(update={"sha256": sha256_file(entry / "model.safetensors")})
    (entry / "record.json").write_text(dump(finished.model_copy(update={"weights": changed})))
    with pytest.raises(UserError, match=f"{said}.*; choose a smaller lr"):
        job.evaluate_finished("smoke", runs()[TEACHER], say)


def test_a_finished_run_needs_no_lock_and_nothing_to_write(project, teacher, in_child):
    """Row 17: a colleague's results, which only he may change."""
    run = runs()[TEACHER]
    (folder(teacher) / "lock").unlink()
    before = {path: path.stat().st_mtime_ns for path in Path("results/store").rglob("*")}

    def as_another_user():
        if os.getuid() == 0:
            os.setuid(65534)
        train(run)
        assert job.evaluate_finished("smoke", run, say) == teacher.metrics

    for path in (project, *project.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert in_child(as_another_user)[1]() == 0
    finally:
        for path in (project, *project.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert {path: path.stat().st_mtime_ns for path in Path("results/store").rglob("*")} == before


def test_a_state_that_outlived_its_training_is_swept(teacher):
    """Rows 3 and 5: killed between the record and the removal of the state, and in the middle of a write."""
    entry = folder(teacher)
    names = sorted(path.name for path in entry.iterdir())
    for name in ("state.pt", "progress.json", "failure.json", ".state.pt.0123abcd.tmp", ".spec.json.0123abcd.tmp"):
        (entry / name).write_text("left over")
    (entry / "spec.json").write_text("of another run")
    report_of(teacher).unlink()
    assert train(runs()[TEACHER])["none"] == teacher
    assert sorted(path.name for path in entry.iterdir()) == names
    assert json.loads((entry / "spec.json").read_text()) == store.record(entry).spec.to_json()


def other_test_label():
    """Give the first test image the label of the second, and take that over."""
    (ROOT / "labels/test/00000.png").write_bytes((ROOT / "labels/test/00001.png").read_bytes())
    return accepted("scenes-smoke", load_params().datasets["scenes-smoke"], ROOT)


def test_another_test_label_costs_an_evaluation_and_no_training(project):
    run = runs()[TEACHER]
    before = train(run)["none"]
    record = (folder(before) / "record.json").read_bytes()
    assert before.evaluation.data_sha256 == manifest.load(ROOT).sha256_of("test")
    found = other_test_label()
    after = train(run)["none"]
    assert after.store == before.store and (folder(after) / "record.json").read_bytes() == record
    assert after.evaluation.data_sha256 == found.sha256_of("test") != before.evaluation.data_sha256
    assert after.metrics != before.metrics and after == result_of(run)
    report = folder(after) / f"eval-{after.evaluation.hash}.json"
    assert read_as(Report, report).data_sha256 == after.evaluation.data_sha256
