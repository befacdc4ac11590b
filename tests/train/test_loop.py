"""The train loop on the real smoke suite: company, kills, resumes and refusals."""

import fcntl
import json
import os
import re
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from support.project import calls_of, fatal_calls
from support.smoke import FEW, PAIR, TEACHER, folder, renamed, result_of, runs, same, say, train

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.models.frozen import freeze
from bcd.models.weights import InitialWeights, require_whole
from bcd.runs import expand, status, store, usable
from bcd.runs.jsonfile import read_as
from bcd.runs.progress import read_progress
from bcd.runs.record import Report, RunResult
from bcd.runs.resolve import overridden
from bcd.runs.run import Run
from bcd.tasks.semantic import SemanticTask
from bcd.train import evaluation, job, loop
from bcd.train.learner import Learner
from bcd.train.signals import Stopped


@pytest.fixture
def teacher(project) -> RunResult:
    return train(runs()[TEACHER])["none"]


def test_a_published_model_is_evaluated_without_a_step(project, teacher):
    weights = folder(teacher) / "model.safetensors"
    settings = {"recipe.steps": 0, "model.pretrained": str(weights)}
    published = train(renamed(overridden(runs()[TEACHER], settings), TEACHER))["none"]
    assert published.store != teacher.store and published.metrics == teacher.metrics
    assert store.record(folder(published)).steps == 0
    mine = load_file(folder(published) / "model.safetensors")
    assert all(torch.equal(tensor, mine[name]) for name, tensor in load_file(weights).items())


def test_another_file_of_the_same_name_makes_another_run(project, tmp_path):
    weights = tmp_path / "weights.pth"
    settings = {"model.pretrained": str(weights)}
    absent = overridden(runs()[TEACHER], settings).fingerprint
    found = [absent]
    for content in (b"one", b"three", b"one"):
        weights.write_bytes(content)
        found.append(overridden(runs()[TEACHER], settings).fingerprint)
    assert len(set(found)) == 3 and found[1] == found[3]


def test_without_a_step_every_tensor_must_come_from_the_file(project, teacher):
    settings = {"recipe.steps": 0, "model.pretrained": str(folder(teacher) / "model.safetensors"), "model.channels": 24}
    with pytest.raises(UserError, match=r"is of another head or width .* leaves \d+ tensors at random, first head\."):
        train(renamed(overridden(runs()[TEACHER], settings), TEACHER))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (
            InitialWeights(unfilled=("head.weight",), engine="detectron2"),  # as a file of MMDetection has them
            r"w\.pth has heads of the engine detectron2, .* set detection\.engine: detectron2, or train the model",
        ),
        (
            InitialWeights(unfilled=("head.classifier.weight", "head.classifier.bias", "aux.classifier.bias")),
            r"w\.pth has another number of classes than the dataset, as it leaves 2 tensors at random, .*; name a file",
        ),
    ],
)
def test_what_a_file_lacks_is_named_where_nothing_trains(weights, sentence):
    with pytest.raises(UserError, match=sentence):
        require_whole(weights, "w.pth")


READS_LABELS = ["none", "kd", "dkd", "bpkd", "ifvd", "cirkd"]


def runs_of(pair: str, methods: list[str]) -> list[Run]:
    """One short run of each method (all of params/methods.yaml if none is named), of one group."""
    params, suite = load_params(), load_suite("smoke")
    methods = methods or list(params.methods)
    tables = [table.model_copy(update={"methods": methods}) for table in suite.tables]
    found = expand.suite_runs(params, suite.model_copy(update={"tables": tables}))
    wanted = [run for key, run in found.items() if key.startswith(pair) and run.repetition == 0]
    assert [run.method for run in wanted] == methods
    return [renamed(overridden(run, {"recipe.steps": 3}), run.key) for run in wanted]


@pytest.mark.parametrize(("pair", "methods"), [(PAIR, []), (FEW, READS_LABELS)], ids=["every method", "few labels"])
def test_a_learners_result_does_not_depend_on_its_company(project, teacher, pair, methods):
    wanted = runs_of(pair, methods)
    together = train(*wanted)
    shutil.rmtree(job.RESULTS / "smoke" / "runs")
    for run in wanted:
        shutil.rmtree(folder(together[run.method]), ignore_errors=True)
    train(runs()[TEACHER])
    for run in wanted:
        assert same(train(run)[run.method], together[run.method]), run.method


def test_what_losses_learn_and_remember_survives_a_stop(project, teacher):
    wanted = [run for run in runs_of(PAIR, []) if run.method not in ("none", "kd")]
    undisturbed = train(*wanted)
    for edge in undisturbed.values():
        shutil.rmtree(folder(edge))

    def stop_after_the_first_step(text: str) -> None:
        if text.startswith("step 1/"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="step 2 of 3"):
        job.run_group("smoke", wanted, stop_after_the_first_step)
    for method, edge in train(*wanted).items():
        assert same(edge, undisturbed[method]), method
        assert store.record(folder(edge)).resumes == 1


def test_equal_terms_under_two_names_are_trained_once(project, teacher):
    chosen = runs()[f"{PAIR}/kd/s0"]
    twin = renamed(chosen, f"{PAIR}/twin/s0")
    job.run_group("smoke", [chosen, twin], say)
    edges = [result_of(run) for run in (chosen, twin)]
    assert edges[0].store == edges[1].store and edges[0].key != edges[1].key


def test_the_student_is_neither_larger_nor_holds_teacher_or_projector(project, teacher):
    edges = train(*[runs()[f"{PAIR}/{method}/s0"] for method in ("none", "bcd", "pbd")])
    plain = load_file(folder(edges["none"]) / "model.safetensors")
    for method in ("bcd", "pbd"):
        weights = load_file(folder(edges[method]) / "model.safetensors")
        assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in plain.items()}
        assert (edges[method].macs, edges[method].parameters) == (edges["none"].macs, edges["none"].parameters)
        assert not torch.equal(weights["head.classifier.weight"], plain["head.classifier.weight"])


def test_the_teacher_is_frozen(project, teacher):
    before = store.record(folder(teacher)).weights
    train(runs()[f"{PAIR}/bcd/s0"])
    assert store.checked_weights(folder(teacher)).stat().st_size == before.bytes


def test_killed_at_random_moments_it_ends_with_the_same_bytes(project, teacher, in_child):
    chosen = [run for key, run in runs(recipe__steps=60).items() if key in (f"{PAIR}/none/s0", f"{PAIR}/bckd/s0")]
    calls = project / "calls"
    pid, wait = in_child(lambda: calls.write_text(str(calls_of(lambda: train(*chosen)))))
    assert wait() == 0
    undisturbed = {run.method: result_of(run) for run in chosen}
    histories = {m: (folder(e) / "history.jsonl").read_bytes() for m, e in undisturbed.items()}
    shutil.rmtree(job.RESULTS / "smoke" / "runs")
    for edge in undisturbed.values():
        shutil.rmtree(folder(edge))
    for fatal in fatal_calls(int(calls.read_text()), 6):
        pid, wait = in_child(lambda fatal=fatal: calls_of(lambda: train(*chosen), fatal))
        assert wait() == -signal.SIGKILL
    final = train(*chosen)
    for method, edge in undisturbed.items():
        assert same(final[method], edge)
        assert (folder(edge) / "history.jsonl").read_bytes() == histories[method]
        assert not (folder(edge) / "state.pt").exists()
    assert sum(store.record(folder(e)).resumes for e in final.values()) > 0
    assert not list(job.RESULTS.rglob(".*.tmp"))


def test_killed_while_evaluating_it_ends_with_the_same_bytes(project, teacher, in_child):
    run = runs()[TEACHER]
    report = folder(teacher) / f"eval-{teacher.evaluation.hash}.json"

    def evaluate() -> None:
        for path in folder(teacher).glob("eval-*"):
            path.unlink()
        job.evaluate_finished("smoke", run, say)

    calls = project / "calls"
    pid, wait = in_child(lambda: calls.write_text(str(calls_of(evaluate))))
    assert wait() == 0
    # Files are written at the end: most of the moments lie there.
    for share in (0.01, 0.3, 0.9, 0.97, 0.98, 0.985, 0.99, 0.995):
        fatal = int(share * int(calls.read_text()))
        pid, wait = in_child(lambda fatal=fatal: calls_of(evaluate, fatal))
        assert wait() == -signal.SIGKILL
        # The report comes last: if it is there, so are the rows that it names.
        assert not report.exists() or read_as(Report, report).rows_sha256 == teacher.evaluation.rows_sha256
    assert job.evaluate_finished("smoke", run, say) == teacher.metrics
    assert result_of(run) == teacher and not list(job.RESULTS.rglob(".*.tmp"))


def test_another_evaluation_trains_nothing(project, teacher):
    path = project / "params" / "recipes.yaml"
    sliding = "  view: {crop: [40, 32]}\n  sliding: {crop: [32, 32], stride: [16, 24]}"
    path.write_text(path.read_text().replace("  view: {crop: [40, 32]}", sliding))
    slid = train(runs()[TEACHER])["none"]
    assert slid.store == teacher.store and slid.fingerprint != teacher.fingerprint
    assert slid.evaluation.hash != teacher.evaluation.hash
    assert len(list(folder(teacher).glob("eval-*.json"))) == 2


def test_a_term_signal_saves_and_the_same_command_continues(project, teacher, in_child):
    chosen = runs(recipe__steps=40)[f"{PAIR}/none/s0"]
    chosen = replace(chosen, runtime=chosen.runtime.model_copy(update={"checkpoint_every": 1000}))
    entry = job.resolve("smoke", chosen).folder()

    def stop_in_the_sixth_step(text: str) -> None:
        if text.startswith("step 5/"):
            os.kill(os.getpid(), signal.SIGTERM)

    def stopped():
        with pytest.raises(Stopped):
            job.run_group("smoke", [chosen], stop_in_the_sixth_step)
        raise SystemExit(143)

    pid, wait = in_child(stopped)
    assert wait() == 143
    assert read_progress(entry).step == 6
    assert not (entry / "record.json").exists()


def test_a_loss_that_is_not_finite_ends_its_learner_alone(project, teacher):
    path = project / "params" / "methods.yaml"
    text = path.read_text()
    # Half of it is a float32 number and all of it is not: the second step's loss is infinite.
    head, found, rest = text.partition("\nkd:\n")
    path.write_text(head + found + re.sub(r"weight: [\d.]+", "weight: 4.0e+38, warmup: 2", rest, count=1))
    chosen = [runs()[f"{PAIR}/{method}/s0"] for method in ("none", "kd")]
    with pytest.raises(UserError) as error:
        train(*chosen)
    assert f"{PAIR}/kd/s0" in str(error.value) and "not finite at step 2" in str(error.value)
    assert ".png" in str(error.value) or "0000" in str(error.value)
    assert chosen[0].file("smoke").exists() and not chosen[1].file("smoke").exists()
    entry = job.resolve("smoke", chosen[1]).folder()
    assert read_progress(entry).step == 1
    assert store.failure(entry).files
    nine, failed = usable.find_runs("smoke", chosen)
    assert chosen[0].key in nine and failed == {"runs failed (`bcd plan --suite smoke` says why)": [chosen[1].key]}
    assert "not finite at step 2" in status.judge_all("smoke", chosen)[chosen[1].key].line


@pytest.mark.parametrize("moment", ["step", "save", "evaluation"])
def test_an_exception_of_one_student_ends_that_student_only(project, teacher, monkeypatch, moment):
    wanted = [runs()[f"{PAIR}/{method}/s0"] for method in ("cwd", "none", "kd")]
    mine = job.resolve("smoke", wanted[0])

    def failing(function, hash_of):
        def run(first, *arguments, **options):
            if hash_of(first) == mine.hash:
                raise ZeroDivisionError("on purpose")
            return function(first, *arguments, **options)

        return run

    with monkeypatch.context() as patch:
        if moment == "step":
            patch.setattr(Learner, "train_step", failing(Learner.train_step, lambda learner: learner.spec.hash))
        elif moment == "save":
            patch.setattr(loop, "_finish", failing(loop._finish, lambda learner: learner.spec.hash))
        else:
            patch.setattr(evaluation, "evaluate", failing(evaluation.evaluate, lambda spec: spec.hash))
        with pytest.raises(UserError, match="ZeroDivisionError: on purpose") as error:
            job.run_group("smoke", wanted, say)
    assert wanted[0].key in str(error.value) and not any(run.key in str(error.value) for run in wanted[1:])
    assert not wanted[0].file("smoke").exists()
    assert all(result_of(run).metrics["miou"] >= 0 for run in wanted[1:])
    assert train(*wanted)["cwd"].metrics["miou"] >= 0


def test_a_term_on_frozen_layers_ends_its_student_alone(project, teacher, monkeypatch):
    """No gradient reaches them, so such a term would only cost time; one behind them teaches."""
    wanted = [runs()[f"{PAIR}/{method}/s0"] for method in ("kd", "bcd-boundary")]
    build = SemanticTask.build

    def frozen(task, model):
        student = build(task, model)
        freeze(student, student.backbone, "stages.0")
        return student

    monkeypatch.setattr(SemanticTask, "build", frozen)
    with pytest.raises(
        UserError, match=r"tap 'stage1' is frozen, so no term can teach it.*`freeze` in params/models\.yaml"
    ):
        job.run_group("smoke", wanted, say)
    assert result_of(wanted[0]).metrics["miou"] >= 0 and not wanted[1].file("smoke").exists()


def test_a_student_that_cannot_be_built_ends_alone(project, teacher):
    """A tap that its model lacks is found when the student is built, which the others do not wait for."""
    good = [runs()[f"{PAIR}/{method}/s0"] for method in ("none", "kd")]
    bad = runs()[f"{PAIR}/cwd/s0"]
    lacking = tuple(term.model_copy(update={"taps": ["p7"]}) for term in bad.training.terms)
    bad = replace(bad, training=replace(bad.training, terms=lacking))  # past the check of params
    with pytest.raises(UserError, match="p7") as error:
        job.run_group("smoke", [bad, *good], say)
    assert all(result_of(run).metrics["miou"] >= 0 for run in good), error
    assert not bad.file("smoke").exists()


def test_two_processes_on_one_run(project, teacher):
    chosen = runs()[f"{PAIR}/kd/s0"]
    entry = job.resolve("smoke", chosen).folder()
    entry.mkdir(parents=True)
    with (entry / "lock").open("a+") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another process .pid 4711"):
            train(chosen)
    assert train(chosen)["kd"].metrics


def test_a_teacher_whose_weights_changed_on_disk(project, teacher):
    path = folder(teacher) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="model.safetensors: missing or changed"):
        train(runs()[f"{PAIR}/kd/s0"])


def test_a_missing_teacher_names_the_remedy(project):
    with pytest.raises(UserError, match="snakemake teachers"):
        train(runs()[f"{PAIR}/kd/s0"])


def test_a_full_disk_is_one_sentence_and_the_same_command_continues(project, teacher, in_child):
    chosen = runs()[f"{PAIR}/none/s0"]

    def limited():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        with pytest.raises(UserError, match="disk full while writing .*state.pt"):
            train(chosen)

    _, wait = in_child(limited)
    assert wait() == 0
    assert train(chosen)["none"].metrics


def test_bf16_trains_finite_and_differs(project, teacher):
    plain = train(runs()[f"{PAIR}/bcd/s0"])["bcd"]
    half = train(runs(recipe__precision="bf16")[f"{PAIR}/bcd/s0"])["bcd"]
    assert half.weights_sha256 != plain.weights_sha256
    assert all(v.isfinite().all() for v in load_file(folder(half) / "model.safetensors").values())


@pytest.mark.parametrize("name", ["smoke-pspnet", "smoke-deeplabv3plus"])
def test_published_structures_learn_with_feature_terms(project, teacher, name):
    """Another backbone, channels and strides than the teacher's, an auxiliary head, and a non-square crop."""
    path = project / "params" / "suites" / "smoke.yaml"
    path.write_text(path.read_text().replace("student: smoke-student", f"student: {name}"))
    edge = train(runs()[f"semantic/scenes-smoke/{name}-from-smoke-teacher/bckd/s0"])["bckd"]
    assert edge.metrics["miou"] >= 0
    line = json.loads((folder(edge) / "history.jsonl").read_text().splitlines()[0])
    assert {"task", "aux", "kd", "boundary", "context"} <= line.keys()
