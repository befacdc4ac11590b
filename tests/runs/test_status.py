"""A run is judged by the splits that it was trained and evaluated on, not by the whole dataset."""

import json
from pathlib import Path

import pytest
from support.suite_results import finished_fixture, load, project_fixture  # noqa: F401

from bcd.data import tree
from bcd.data.acquire import manifest
from bcd.data.acquire.obtain import obtain
from bcd.data.formats import scenes
from bcd.errors import UserError
from bcd.planning import survey
from bcd.runs.expand import suite_runs
from bcd.runs.jsonfile import read_as
from bcd.runs.record import RunResult
from bcd.runs.spec import digest
from bcd.runs.status import TO_TRAIN, Verdict, judge_all
from bcd.tracking import sync

ROOT = Path("data/scenes-smoke")
SPLITS = ("train", "val", "test")


def look(root, files):
    return tree.split_facts(tree.listed_in(root, files, "x"), files, reader=scenes, splits=SPLITS)


def verdicts():
    return {key: one.verdict for key, one in judge_all("smoke", suite_runs(*load()).values()).items()}


def rewritten(**changes):
    """The manifest anew, of the files as they lie there."""
    found = manifest.load(ROOT)
    files = manifest.scan(ROOT)
    facts = look(ROOT, {file.path: file for file in files})
    return manifest.write(ROOT, {**found.fields, **facts, **changes}, files)


def swap_labels(split):
    """Another valid label for the first image of a split."""
    (ROOT / f"labels/{split}/00000.png").write_bytes((ROOT / f"labels/{split}/00001.png").read_bytes())


def older():
    """Manifest, small JSON, records and specs as they were before splits had hashes."""
    path = ROOT / "manifest.json"
    fields = json.loads(path.read_text())
    del fields["split_sha256"], fields["check"]
    path.write_text(json.dumps(fields))
    places = {}
    for folder in list(Path("results/store").iterdir()):
        spec, record = (json.loads((folder / f"{name}.json").read_text()) for name in ("spec", "record"))
        spec |= {"version": 1, "manifest_sha256": spec.pop("data_sha256")}
        (folder / "spec.json").write_text(json.dumps(spec))
        (folder / "record.json").write_text(json.dumps(record | {"spec": spec}))
        places[folder.name] = digest(spec)
        folder.rename(folder.with_name(digest(spec)))
    for file in Path("results/smoke").rglob("*.json"):
        content = json.loads(file.read_text())
        del content["data"]["sha256"], content["evaluation"]["data_sha256"]
        content["store"] = places[content["store"]]
        file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("split", "verdict"), [("train", Verdict.CHANGED), ("test", Verdict.STORED), ("val", Verdict.STORED)]
)
def test_only_a_changed_train_split_costs_a_training(project, split, verdict):
    before = manifest.load(ROOT).split_sha256
    swap_labels(split)
    after = rewritten().split_sha256
    assert {name for name in SPLITS if before[name] != after[name]} == {split}
    assert set(verdicts().values()) == {verdict}
    left = survey.totals(survey.survey("smoke", suite_runs(*load()))).verdicts
    assert set(left) == {verdict} and (verdict in TO_TRAIN) == (split == "train")


def test_a_changed_note_costs_no_training(project):
    rewritten(note="mended")
    assert set(verdicts().values()) == {Verdict.STORED}


def test_a_splits_hash_is_of_names_bytes_and_order(project):
    before = manifest.load(ROOT).split_sha256
    for folder in ("images", "labels"):
        (ROOT / folder / "val/00005.png").rename(ROOT / folder / "val/00009.png")
    assert {name for name in SPLITS if rewritten().split_sha256[name] != before[name]} == {"val"}
    annotations = ROOT / scenes.annotation_file("test")
    annotations.write_text(annotations.read_text() + " ")
    after = rewritten().split_sha256
    assert {name for name in SPLITS if after[name] != before[name]} == {"val", "test"}


def test_what_older_versions_wrote_is_read_completed_and_counts_as_changed(project):
    older()
    assert set(verdicts().values()) == {Verdict.CHANGED}
    assert all(one.seconds for one in survey.survey("smoke", suite_runs(*load())))  # step times of old records
    assert sync.sync(*load()).error is None
    with pytest.raises(UserError, match=r"manifest\.json is of an older version; run `bcd fetch scenes-smoke`"):
        manifest.load(ROOT).sha256_of("train")
    payload = {path: path.stat().st_mtime_ns for path in ROOT.rglob("*.png")}
    params, _ = load()
    found = obtain("scenes-smoke", params.datasets["scenes-smoke"], ROOT, mirror_dir=None)
    assert found.split_sha256.keys() == set(SPLITS)
    assert {path: path.stat().st_mtime_ns for path in ROOT.rglob("*.png")} == payload
    assert set(verdicts().values()) == {Verdict.CHANGED}


def test_an_old_result_is_read_without_the_new_hashes(project):
    older()
    file = next(Path("results/smoke/runs").rglob("*.json"))
    result = read_as(RunResult, file)
    assert result.data.sha256 is None and result.evaluation.data_sha256 is None
