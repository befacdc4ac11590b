"""An evaluation is of the data that it names, and is done anew for other data."""

from pathlib import Path

from support.smoke import TEACHER, folder, result_of, runs, train

from bcd.config.load import load_params
from bcd.data.acquire import manifest
from bcd.data.acquire.obtain import accepted
from bcd.runs.record import Report, read_as

ROOT = Path("data/scenes-smoke")


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
