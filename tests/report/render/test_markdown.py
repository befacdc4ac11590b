import re

from support.tables import content, finish_clearly

from bcd.report.render import latex, markdown


def test_a_clear_gain_is_bold_a_clear_loss_has_a_dagger_and_equal_methods_have_neither(project):
    finish_clearly(project)
    measured = content()
    lines = {line.split(" | ")[0].strip("| "): line for line in markdown.render(measured).splitlines()}
    assert "**" in lines["bcd"] and "†" in lines["cwd"] and not set("*†") & set(lines["kd"])
    text = latex.render(measured)
    assert re.search(r"\\textbf\{\d+\.\d\d \$\\pm\$ \d+\.\d\d\}", text) and r"$^{\dagger}$ &" in text


def test_one_seed_has_no_deviation(project):
    assert "±" not in "".join(markdown.render(content(seeds=1)).splitlines()[3:])


def test_another_teacher_dataset_is_named(project):
    assert "trained on scenes-smoke" in markdown.render(content("few-labels"))
