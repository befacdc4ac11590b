"""Ctrl-C in a terminal: what of Snakemake's report of stopped jobs is shown, and what of failed ones."""

import logging
import re

from support.project import ROOT, in_terminal

from bcd.cli.building import ENDING, STOPPING, Building

KEY = "semantic/scenes-smoke/smoke-teacher/none/s0"
FAILED = (
    "RuleException:\nCalledProcessError in file \"runs.smk\", line 37:\nCommand 'bcd' returned non-zero exit status "
)


def test_one_sentence_says_that_a_job_was_stopped(project):
    recipes = project / "params/recipes.yaml"
    head, name, rest = recipes.read_text().partition("\nsmoke:\n")
    recipes.write_text(head + name + rest.replace("steps: 2\n", "steps: 100000\n", 1))
    target = f"results/smoke/teachers/{KEY}.json"
    command = ("snakemake", "--cores", "1", "--config", "suite=smoke", "--", target)
    code, said = in_terminal(*command, cwd=project, until="/100000, 1 learner", PYTHONPATH=str(ROOT))
    assert code == 1
    after = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "\n", said.partition("^C")[2])
    lines = [line.strip() for line in after.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("train semantic", "suite smoke: "))]  # the picture
    assert len(lines) == 2, lines
    assert lines[0].startswith(STOPPING)
    assert re.fullmatch(
        r"results/smoke/logs/.*/s0.log: stopped at step \d+ of 100000; .* continues from here", lines[1]
    )


def shown(building: Building, text: str, event: str = "error", **facts: object) -> bool:
    return bool(building.filter(logging.makeLogRecord({"msg": text, "event": event} | facts)))


def started(building: Building, number: int, log) -> None:
    shown(building, "", "job_info", jobid=number, rule_name="r", rule_msg="m", log=[str(log)])


def test_a_job_that_failed_is_shown_in_a_build_that_was_stopped(tmp_path):
    stopped, failed = tmp_path / "stopped.log", tmp_path / "failed.log"
    stopped.write_text("10:00:00 step 1/2\nbcd: stopped by SIGINT; finished work is kept\n")
    failed.write_text("Traceback\n")
    building = Building("smoke")
    for number, log in enumerate((stopped, failed, stopped)):
        started(building, number, log)
    assert shown(building, FAILED + "130."), "nobody has stopped anything yet"
    assert shown(building, f"{STOPPING}, this might take some time.", "")
    assert not shown(building, FAILED + "130.") and not shown(building, "", "job_error", jobid=0)
    assert not any(shown(building, end, "") for end in ENDING)
    assert shown(building, FAILED + "2.") and shown(building, "", "job_error", jobid=1)
    assert all(shown(building, end, "") for end in ENDING)
    assert not shown(building, "", "job_error", jobid=2)
