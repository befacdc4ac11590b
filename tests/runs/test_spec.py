"""The JSON of a spec: equal for equal runs, older than the types, and read back as what it was."""

import json
from functools import cache

import pytest
from support.project import ROOT

from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.runs.expand import suite_runs
from bcd.runs.record import read_spec
from bcd.runs.resolve import overridden
from bcd.runs.spec import RunSpec

SUITES = sorted(path.stem for path in (ROOT / "params/suites").glob("*.yaml"))
# Addresses from before runs had types: a change of one of them loses every stored result.
STORED = {
    "semantic/scenes-smoke/smoke-teacher/none/s0": "0f133eb5cedb5fc1",
    "semantic/scenes-smoke/smoke-student-from-smoke-teacher/kd/s0": "04b37572fac01c70",
    "semantic/scenes-smoke-few/smoke-student-from-smoke-teacher/bcd/s1": "22502b41d2bee449",
    "detection/scenes-smoke/smoke-retinanet-from-smoke-retinanet/bcd/s0": "b6b1ce756402fc37",
    "instance/scenes-smoke/smoke-maskrcnn/none/s0": "f08dd9c59551026f",
}


@cache
def runs(suite):
    return suite_runs(load_params(ROOT / "params"), load_suite(suite, ROOT / "params"))


def test_addresses_stay():
    found = runs("smoke")
    assert {key: found[key].fingerprint for key in STORED} == STORED


@pytest.mark.parametrize("suite", SUITES)
def test_a_spec_is_read_back_as_it_was(suite):
    for run in runs(suite).values():
        spec = run.spec("0" * 64, "1" * 64)
        content = json.loads(json.dumps(spec.to_json()))
        again = RunSpec.from_json(content)
        assert again.to_json() == content and again.hash == spec.hash
        assert again.training.terms == run.training.terms and again.training.model == run.training.model
        assert again.training.recipe.view == run.training.recipe.view
        assert again.training.recipe.optimizer == run.training.recipe.optimizer


def test_mining_of_hard_pixels_is_in_the_spec_where_there_is_any():
    run = runs("smoke")["semantic/scenes-smoke/smoke-teacher/none/s0"]
    mined = overridden(run, {"recipe.ohem": {"threshold": 0.6, "min_kept": 50}})
    plain, content = (one.spec("0" * 64, None).to_json() for one in (run, mined))
    assert "ohem" not in plain["recipe"] and content["recipe"]["ohem"] == {"threshold": 0.6, "min_kept": 50}
    again = RunSpec.from_json(json.loads(json.dumps(content)))
    assert again.training.recipe == mined.training.recipe and again.to_json() == content


def test_a_spec_needs_its_teacher_where_a_term_looks_at_it():
    run = runs("smoke")["semantic/scenes-smoke/smoke-student-from-smoke-teacher/kd/s0"]
    with pytest.raises(ValueError, match="needs its teacher's weights hash"):
        run.spec("0" * 64, None)
    assert run.spec("0" * 64, "1" * 64).hash != run.spec("0" * 64, "2" * 64).hash


@pytest.mark.parametrize(
    "content", ["{}", "[]", "3", '{"version": 2}', '{"version": 1, "task": "semantic"}', "not json"]
)
def test_a_spec_of_another_shape_is_one_sentence(tmp_path, content):
    (tmp_path / "spec.json").write_text(content)
    with pytest.raises(UserError, match="spec.json"):
        read_spec(tmp_path)
