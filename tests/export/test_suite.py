"""Exported students in a suite: a job trains, exports and evaluates them; the table compares them with PyTorch."""

import contextlib
import csv
import io
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.exports import chip_suite
from support.project import copy_project
from support.project import run as run_command
from support.smoke import PAIR, TEACHER, say

from bcd.config.load import load_params
from bcd.config.schema.recipes import Resize
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.export import finished
from bcd.export.runtime import open_file
from bcd.files import sha256_file
from bcd.metrics import load_rows
from bcd.planning.outdated import outdated
from bcd.report.measure import measure
from bcd.report.render import latex, long_csv, markdown, terminal
from bcd.runs import code, expand
from bcd.runs.jsonfile import read_as
from bcd.runs.record import Report, RunResult
from bcd.runs.status import DATA, RESULTS, Verdict, judge_all
from bcd.train import job

pytest.importorskip("onnxruntime")

BCD = str(Path(sys.executable).parent / "bcd")

FORMS = ("", "@onnx", "@onnx-int8")
TWO_STAGES = """
two-stages: &stages {backbone: resnet18, output_stride: 32, head: faster_rcnn, channels: 8, detection: {}}
two-stages-of-detectron2: {<<: *stages, detection: {engine: detectron2}}
"""
ONLY = "only RetinaNet and FCOS of engine torchvision are exported"
DETECTORS = (
    "{dataset: scenes-smoke, teacher: smoke-retinanet, teacher_recipe: smoke-detector, student: smoke-retinanet, "
    "recipe: smoke-detector}"
)
BOXES = "detection/scenes-smoke/smoke-retinanet-from-smoke-retinanet/none"
WHOLE = "onnx-int8-whole: {format: onnx, precision: int8, calibration: 1000}\n"
BOXES_TABLE = f"""\
  - name: boxes
    caption: The numbers mean nothing.
    task: detection
    seeds: 1
    metrics: [ap, ap50]
    main_metrics: [ap]
    pairs: [{DETECTORS}]
    exports: [onnx, onnx-int8, onnx-int8-whole]
    methods: [none]
    panels: {{methods: [none], images: 2}}
"""
SUITE = chip_suite(
    ("onnx", "onnx-int8"), seeds=2, metrics=("miou", "biou", "conn"), main=("miou", "biou"), more=BOXES_TABLE
)


@pytest.fixture(scope="module")
def built(tmp_path_factory, smoke_data) -> Path:
    """A project in which every job of the suite has been done."""
    folder = copy_project(tmp_path_factory.mktemp("chip"))
    shutil.copytree(smoke_data, folder / "data" / "scenes-smoke")
    with contextlib.chdir(folder):
        Path("params/suites/chip.yaml").write_text(SUITE)
        exports = Path("params/exports.yaml")
        exports.write_text(exports.read_text().replace("calibration: 64", "calibration: 4") + WHOLE)
        for jobs in expand.groups(expand.suite_runs(load_params(), load_suite("chip"))).values():
            job.run_group("chip", jobs, say)
    return folder


@pytest.fixture
def runs(built, monkeypatch):
    monkeypatch.chdir(built)
    return expand.suite_runs(load_params(), load_suite("chip"))


def result(runs, key: str) -> RunResult:
    return read_as(RunResult, runs[key].file("chip"))


def test_exports_are_evaluated_in_the_store_under_the_run_they_belong_to(runs):
    expected = {f"{PAIR}/{m}{f}/s{s}" for m in ("none", "cwd") for f in FORMS for s in (0, 1)}
    expected |= {TEACHER, "detection/scenes-smoke/smoke-retinanet/none/s0"}
    expected |= {f"{BOXES}{form}/s0" for form in (*FORMS, "@onnx-int8-whole")}
    assert set(runs) == expected
    plain, onnx, int8 = (result(runs, f"{PAIR}/cwd{form}/s0") for form in FORMS)
    assert plain.store == onnx.store == int8.store and plain.weights_sha256 == int8.weights_sha256
    assert plain.evaluation.exported is None
    for one in (onnx, int8):
        facts = one.evaluation.exported
        assert facts and facts.files.keys() == {path.name for path in exported(one)}
        assert {sha256_file(path) for path in exported(one)} == set(facts.files.values())
    assert onnx.evaluation.exported.largest < 1e-3 < int8.evaluation.exported.largest
    assert int8.evaluation.exported.calibration == 4
    assert all(status.verdict is Verdict.DONE for status in judge_all("chip", runs.values()).values())


def exported(one: RunResult) -> list[Path]:
    folder = RESULTS / "store" / one.store
    return [path for path in folder.glob("export-*.onnx") if path.name in one.evaluation.exported.files]


def test_the_table_compares_each_form_with_its_baseline_and_with_pytorch(runs):
    params, suite = load_params(), load_suite("chip")
    content = measure(params, suite, suite.tables[0], RESULTS, DATA)
    assert [pair.export for pair in content.pairs] == [None, "onnx", "onnx-int8"]
    torch, onnx, int8 = content.pairs
    assert all(cell.to_pytorch is None for row in torch.rows for cell in row.cells.values())
    for block in (onnx, int8):
        assert block.row("none").cells["miou"].difference is None
        for method in ("none", "cwd"):
            found = block.row(method).cells["miou"]
            plain = torch.row(method).cells["miou"]
            assert found.to_pytorch.values == pytest.approx(np.subtract(found.values, plain.values))
    assert content.comparisons == 2 * 1  # in each of two metrics cwd against none, in each form
    assert content.comparisons_to_pytorch == 2 * 2  # both methods, in each of the other forms
    assert "2 comparisons with 'none' of each form, and over the 4 with PyTorch of each" in content.caption
    text = markdown.render(content)
    assert "as onnx-int8**" in text and "Δ mIoU to PyTorch" in text and "onnxruntime" in content.caption
    assert long_csv.render(content).splitlines()[0].endswith("pytorch_p,pytorch_significant")


def test_an_export_that_is_gone_is_not_done(runs):
    """`bcd plan` and snakemake see it, and it costs no training."""
    run = runs[f"{PAIR}/cwd@onnx/s0"]
    (file,) = exported(result(runs, run.key))
    whole = file.read_bytes()
    file.unlink()
    found = judge_all("chip", [run, runs[f"{PAIR}/cwd/s0"]])
    assert found[run.key].verdict is Verdict.STORED and found[f"{PAIR}/cwd/s0"].verdict is Verdict.DONE
    assert found[run.key].line.endswith("runs have lost their exported file in results/store")
    params, suite = load_params(), load_suite("chip")
    assert run.file("chip") in outdated(params, suite, expand.suite_rows(params, suite))
    file.write_bytes(whole)
    assert judge_all("chip", [run])[run.key].verdict is Verdict.DONE


def test_a_file_that_is_damaged_or_gone_is_made_again(runs):
    run = runs[f"{PAIR}/cwd@onnx/s0"]
    one = result(runs, run.key)
    (file,) = exported(one)
    for damage in (file.unlink, lambda: file.write_bytes(b"not what it was")):
        damage()
        run.file("chip").unlink()
        job.run_group("chip", [run], say)
        assert sha256_file(file) == one.evaluation.exported.files[file.name]
        assert result(runs, run.key) == one


def test_two_ways_of_showing_images_have_a_file_each(runs):
    run = runs[f"{PAIR}/cwd@onnx/s0"]
    (file,) = exported(result(runs, run.key))
    whole = file.read_bytes()
    resize = Resize(short_sides=[40], max_long_side=40)
    other = replace(run, evaluation=run.evaluation.model_copy(update={"resize": resize}), key=f"{run.key}-resized")
    job.run_group("chip", [other], say)
    assert file.read_bytes() == whole
    assert open_file(file).metadata.view.height == 48
    (second,) = exported(read_as(RunResult, other.file("chip")))
    assert open_file(second).metadata.view.height == 40


def test_the_key_of_an_exported_student_names_its_file(runs, built, tmp_path):
    key = f"{PAIR}/cwd@onnx-int8/s0"
    one = result(runs, key)
    (file,) = exported(one)
    refused = run_command(BCD, "export", key, "--suite", "chip", cwd=built, check=False)
    assert refused.returncode == 2 and f"{key} is a file already, {file}; name the run without" in refused.stdout
    run_command(
        BCD,
        "predict",
        key,
        "data/scenes-smoke/images/test",
        "--out",
        str(tmp_path / "key"),
        "--suite",
        "chip",
        cwd=built,
    )
    run_command(BCD, "predict", str(file), "data/scenes-smoke/images/test", "--out", str(tmp_path / "file"), cwd=built)
    theirs, ours = (sorted((tmp_path / name / "labels").iterdir()) for name in ("key", "file"))
    assert [path.read_bytes() for path in theirs] == [path.read_bytes() for path in ours]


def test_the_folder_of_a_run_with_exports_is_its_pytorch_model(runs):
    one = result(runs, f"{PAIR}/cwd@onnx/s0")
    found = finished.of_folder(RESULTS / "store" / one.store, load_params().datasets)
    assert found.key == f"{PAIR}/cwd/s0" and found.evaluation.export is None


def test_float32_labels_nearly_every_pixel_as_pytorch_does(runs):
    def hits(key: str) -> np.ndarray:
        one = result(runs, key)
        return load_rows(RESULTS / "store" / one.store / f"eval-{one.evaluation.hash}.npz")[0]["miou.num"]

    plain, onnx = hits(f"{PAIR}/none/s0"), hits(f"{PAIR}/none@onnx/s0")
    assert np.abs(plain - onnx).sum() <= 1e-3 * plain.sum()


def test_code_of_exports_makes_no_pytorch_run_stale():
    _, plain = code.modules("semantic", "scenes", [])
    _, onnx = code.modules("semantic", "scenes", [], "onnx")
    assert not any(name.startswith("bcd.export") for name in plain)
    assert {"bcd.export.evaluated", "bcd.export.onnx", "bcd.export.build"} <= onnx
    assert "bcd.export.openvino" not in onnx


def test_detectors_are_evaluated_as_files_too(runs):
    plain, onnx, int8 = (result(runs, f"{BOXES}{form}/s0") for form in FORMS)
    assert plain.metrics.keys() == onnx.metrics.keys() and plain.evaluation.images == int8.evaluation.images
    assert onnx.evaluation.exported.largest < 1e-3 < int8.evaluation.exported.largest


def test_a_dataset_with_fewer_images_than_a_form_calibrates_on_gives_all(runs):
    assert result(runs, f"{BOXES}@onnx-int8-whole/s0").evaluation.exported.calibration == 12


def test_time_and_bytes_of_the_files_stand_in_every_format_of_the_table(runs):
    params, suite = load_params(), load_suite("chip")
    content = measure(params, suite, suite.tables[0], RESULTS, DATA)
    torch, onnx, int8 = (block.row("cwd") for block in content.pairs)
    one = result(runs, f"{PAIR}/cwd@onnx/s0")
    report = read_as(Report, RESULTS / "store" / one.store / f"eval-{one.evaluation.hash}.json")
    assert 0 < report.latency.low <= report.latency.ratio <= report.latency.high and report.latency.pytorch_seconds > 0
    assert "latency" not in runs[f"{PAIR}/cwd@onnx/s0"].file("chip").read_text()  # it differs between two executions
    assert torch.file is None and onnx.file.bytes == one.evaluation.exported.bytes != int8.file.bytes
    assert onnx.file.time == pytest.approx(np.median([time_of(runs, "cwd", seed) for seed in (0, 1)]))
    for text in (markdown.render(content), latex.render(content), terminal.render(content)):
        assert f"{onnx.file.time:.2f}" in text and f"{onnx.file.bytes / 1000:.3g} kB" in text
    lines = list(csv.DictReader(io.StringIO(long_csv.render(content))))
    assert {(float(line["bytes"]), float(line["time"])) for line in lines if line["time"]} >= {
        (onnx.file.bytes, onnx.file.time)
    }


def time_of(runs, method: str, seed: int) -> float:
    one = result(runs, f"{PAIR}/{method}@onnx/s{seed}")
    return read_as(Report, RESULTS / "store" / one.store / f"eval-{one.evaluation.hash}.json").latency.ratio


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"smoke-retinanet": "smoke-maskrcnn"}, f"{ONLY}: an R-CNN looks at regions"),
        ({"smoke-retinanet": "smoke-maskrcnn", "task: detection": "task: instance"}, f"{ONLY}: an R-CNN looks at"),
        ({"smoke-retinanet": "two-stages"}, f"{ONLY}: an R-CNN looks at regions"),
        ({"smoke-retinanet": "two-stages-of-detectron2"}, f"{ONLY}: an R-CNN looks at regions"),
        ({"smoke-retinanet": "coco-mini-retinanet"}, f"{ONLY}: none of detectron2 was tried"),
        ({"student: smoke-student": "student: smoke-pspnet"}, "the head 'psp' pools to fixed grids"),
    ],
)
def test_a_model_that_no_file_holds_is_refused_before_anything_is_trained(project, changes, sentence):
    path, models = Path("params/exports.yaml"), Path("params/models.yaml")
    path.write_text(path.read_text() + "open: {format: onnx, dynamic: true}\n")
    models.write_text(models.read_text() + TWO_STAGES)
    text = SUITE.replace("[onnx, onnx-int8", "[open")
    for old, new in changes.items():
        text = text.replace(old, new)
    Path("params/suites/chip.yaml").write_text(text)
    with pytest.raises(UserError, match=f"chip.yaml: tables.*exports: the model '.*': {sentence}"):
        expand.suite_runs(load_params(), load_suite("chip"))


def test_an_export_that_is_not_defined_is_named(project):
    path = Path("params/suites/chip.yaml")
    path.write_text(SUITE.replace("onnx-int8]", "onix]"))
    with pytest.raises(UserError, match="'onix' is not defined"):
        expand.suite_runs(load_params(), load_suite("chip"))
