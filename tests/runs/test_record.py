"""JSON files of ours: equal bytes for equal results, and one sentence for what is no such file."""

import json
from pathlib import Path

import pytest
from support.suite_results import finished_fixture, load, project_fixture  # noqa: F401

from bcd.errors import UserError
from bcd.report.content import TableContent
from bcd.report.tables import build
from bcd.runs.expand import suite_runs
from bcd.runs.jsonfile import dump, read_as
from bcd.runs.progress import Progress
from bcd.runs.record import Failure, Record, Report, RunResult, read_spec
from bcd.runs.status import Verdict, judge_all
from bcd.runs.usable import read_runs

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


def places(value, path=()):
    """The path of every value inside JSON."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def test_any_part_of_another_shape_is_one_sentence_or_harmless(project, tmp_path):
    """What lies in a file may be anything: `{}` or `[]` in any place of it, too."""
    done = statuses()[KEY]
    build(*load(), "few-labels", figure=False)
    table = Path("results/smoke/tables/few-labels.json")
    report = Report(hash="a", split="test", images=1, rows_sha256="b", metrics={"miou": 1.0}, code="c", seconds=1.0)
    failure = Failure(step=3, why="because", losses={"task": "nan"}, files=["a.png"])
    kinds = {
        Record: json.loads((done.place / "record.json").read_text()),
        RunResult: json.loads(done.file.read_text()),
        TableContent: json.loads(table.read_text()),
        Report: report.model_dump(),
        Failure: failure.model_dump(),
        Progress: {"spec": "a", "step": 1, "made_by": {"torch": "2"}},
    }
    refused = 0
    for kind, content in kinds.items():
        assert read_as(kind, written(tmp_path, content))
        for path in list(places(content))[:120]:
            for new in ({}, [], "x", None, -1):
                try:
                    read_as(kind, written(tmp_path, replaced(content, path, new)))
                except UserError as error:
                    refused += 1
                    assert "\n" not in str(error)
    assert refused > 500


def written(folder, content):
    path = folder / "some.json"
    path.write_text(json.dumps(content))
    return path


def test_a_spec_of_another_run_is_refused(project):
    mine, other = statuses()[KEY].place, statuses()[KEY.replace("/kd/", "/none/")].place
    assert read_spec(mine).hash == mine.name
    for text in ((other / "spec.json").read_text(), "{}", "[]", '{"version": 1}', "3", "\x00"):
        (mine / "spec.json").write_text(text)
        with pytest.raises(UserError, match=f"{mine / 'spec.json'} is .*; delete the folder {mine}"):
            read_spec(mine)


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
