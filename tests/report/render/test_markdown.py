import json
import re

from support.suite_results import finish_run, load
from support.tables import RESULTS, content

from bcd.report.render import latex, markdown
from bcd.runs.expand import suite_runs
from bcd.runs.run import run_file


def test_a_clear_gain_is_bold_a_clear_loss_has_a_dagger_and_equal_methods_have_neither(project):
    params, suite = load()
    for run in suite_runs(params, suite).values():
        if run.teacher:
            # Differences that hardly vary between seeds, so that two seeds suffice.
            edge = json.loads(run_file("smoke", run.teacher, RESULTS).read_text())
            noise = {"bcd": 0.02, "cwd": 0.9}.get(run.method, 0.5)
            finish_run(project, "smoke", run, edge, noise=noise)
    measured = content()
    lines = {line.split(" | ")[0].strip("| "): line for line in markdown.render(measured).splitlines()}
    assert "**" in lines["bcd"] and "†" in lines["cwd"] and not set("*†") & set(lines["kd"])
    text = latex.render(measured)
    assert re.search(r"\\textbf\{\d+\.\d\d \$\\pm\$ \d+\.\d\d\}", text) and r"$^{\dagger}$ &" in text


def test_one_seed_has_no_deviation(project):
    assert "±" not in "".join(markdown.render(content(seeds=1)).splitlines()[3:])


def test_another_teacher_dataset_is_named(project):
    assert "trained on scenes-smoke" in markdown.render(content("few-labels"))
