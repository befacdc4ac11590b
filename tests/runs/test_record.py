"""JSON files of ours: equal bytes for equal results, and one sentence for what is no such file."""

import json

import pytest
from support.suite_results import finished_fixture, load, project_fixture  # noqa: F401

from bcd.errors import UserError
from bcd.runs.expand import suite_runs
from bcd.runs.record import Record, Report, RunResult, dump, read_as
from bcd.runs.status import Verdict, judge_all, read_runs

KEY = "semantic/scenes-smoke/smoke-student-from-smoke-teacher/kd/s0"


def statuses():
    return judge_all("smoke", suite_runs(*load()).values())


@pytest.mark.parametrize("content", ["{}", "[]", "3", "null", "not json", '{"key": 3}', b"\xff\xfe"])
@pytest.mark.parametrize("kind", [Record, Report, RunResult])
def test_a_file_of_another_shape_is_one_sentence(tmp_path, kind, content):
    path = tmp_path / "some.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        read_as(kind, path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert "run `snakemake` again" in str(error.value)


def test_what_was_written_is_read_back_to_the_byte(project):
    status = statuses()[KEY]
    assert dump(status.finished) == status.file.read_text()
    record = status.place / "record.json"
    assert dump(read_as(Record, record)) == record.read_text()


def test_every_run_is_done_and_one_without_its_file_is_stored(project):
    assert {status.verdict for status in statuses().values()} == {Verdict.DONE}
    statuses()[KEY].file.unlink()
    assert statuses()[KEY].verdict is Verdict.STORED
    with pytest.raises(UserError, match=f"runs are missing: {KEY}; run `snakemake --config suite=smoke`"):
        read_runs("smoke", suite_runs(*load()).values())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fingerprint": "0" * 16}, "other parameters"),
        ({"teacher": {"key": "a", "store": "b", "weights_sha256": "c"}}, "another teacher"),
    ],
)
def test_a_run_that_is_not_todays_says_why(project, change, why):
    file = statuses()[KEY].file
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    status = statuses()[KEY]
    assert not status.usable and why in status.why
