"""Files of tables: equal bytes for equal results, and no table of what is missing, changed or another's."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import calls_of
from support.suite_results import change_weight, finish_run, load
from support.tables import STUDENT, cell, content, edit, student_file

from bcd.errors import UserError
from bcd.report import tables
from bcd.report.render import markdown
from bcd.runs.expand import suite_runs

IMPORTS = "from bcd.config.load import load_params; from bcd.config.suites import load_suite;"


def build(table="all-labels", **options):
    return tables.build(*load(), table, **options)


def test_equal_results_give_equal_bytes(project):
    first = {path: path.read_bytes() for path in build()}
    assert [path.suffix for path in first] == [".md", ".tex", ".csv", ".json", ".png"]
    program = f"{IMPORTS} from bcd.report import tables; tables.build(load_params(), load_suite('smoke'), 'all-labels')"
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert {path: path.read_bytes() for path in first} == first


def test_building_without_a_figure_imports_neither_matplotlib_nor_torch(project):
    program = (
        f"import sys; {IMPORTS} from bcd.report import tables;"
        "tables.build(load_params(), load_suite('smoke'), 'few-labels', figure=False);"
        "assert not {'torch', 'matplotlib', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_show_prints_the_main_metrics_of_a_built_table(project):
    with pytest.raises(UserError, match="all-labels.json is missing"):
        tables.show(Path("results"), "smoke", "all-labels")
    build(figure=False)
    text = tables.show(Path("results"), "smoke", "all-labels")
    assert f"{cell(content(), 'bcd', 'conn').mean:.2f}" in text and "mIoU" in text
    assert max(map(len, text.splitlines())) <= 100


def test_show_refuses_a_table_of_another_version_and_says_how_to_build_it(project):
    for partial, option in ((False, ""), (True, " --partial")):
        build(figure=False, partial=partial)
        path = tables.table_file(Path("results"), "smoke", "all-labels", "json", partial=partial)
        edit(path, lambda table: table.pop("comparisons"))
        with pytest.raises(UserError) as caught:
            tables.show(Path("results"), "smoke", "all-labels", partial=partial)
        assert str(path) in str(caught.value)
        assert f"run `bcd tables --suite smoke --table all-labels{option}`" in str(caught.value)


# --- what is wrong with the results ------------------------------------------------------------------------


def test_missing_runs_are_named(project):
    student_file("bcd", 1).unlink()
    student_file("kd", 0).unlink()
    with pytest.raises(UserError, match=rf"missing: {STUDENT}/kd/s0, {STUDENT}/bcd/s1; run `snakemake"):
        build()
    assert not Path("results/smoke/tables").exists()


def test_runs_of_other_parameters_are_named(project):
    change_weight("pbd")
    with pytest.raises(UserError, match="other parameters: .*/pbd/s0, .*/pbd/s1; run `snakemake"):
        build()


def test_runs_of_another_teacher_are_named(project):
    params, suite = load()
    teacher = next(run for run in suite_runs(params, suite).values() if not run.teacher)
    finish_run(project, "smoke", teacher, None, salt="trained again")
    with pytest.raises(UserError, match=f"another teacher than today's: {STUDENT}/kd/s0") as caught:
        build()
    assert "/none/" not in str(caught.value)


def test_runs_of_other_data_are_named_unless_the_data_is_gone(project):
    manifest = Path("data/scenes-smoke/manifest.json")
    text = manifest.read_text()
    hashes = json.loads(text)["split_sha256"]
    for other, message in (
        (text.replace(hashes["train"], "0" * 64), "runs were made with other data than data/scenes-smoke"),
        (
            text.replace(hashes["test"], "0" * 64),
            "runs were evaluated on another 'test' than that",
        ),
        (text + " ", "runs say of data/scenes-smoke what its manifest no longer says"),
    ):
        manifest.write_text(other)
        with pytest.raises(UserError, match=f"{message}.*: .* and 9 more"):
            build()
    shutil.rmtree("data")
    build(figure=False)


def test_changed_rows_are_refused(project):
    result = json.loads(student_file("cwd").read_text())
    path = next(Path("results/store", result["store"]).glob("eval-*[0-9a-f].npz"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=rf"{path} is missing or changed.*{STUDENT}/cwd/s0"):
        build()
    path.unlink()
    with pytest.raises(UserError, match="is missing or changed"):
        build()


def test_code_stale_runs_are_noted_not_refused(project):
    edit(student_file("brd"), lambda result: result["code"].update(train="an older one"))
    build(figure=False)
    for kind in ("md", "tex", "json"):
        text = Path(f"results/smoke/tables/all-labels.{kind}").read_text()
        assert re.search(r"Code-stale: [^:]*: smoke-student from smoke-teacher on scenes-smoke: brd \(s0\)\.", text)
    assert "Code-stale" not in markdown.render(content("few-labels"))


def test_an_unknown_table_names_the_nearest(project):
    with pytest.raises(UserError, match="did you mean 'all-labels'"):
        build("all-label")


# --- kills -------------------------------------------------------------------------------------------------


def test_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(project, in_child):
    paths = build()
    wanted = {path: path.read_bytes() for path in paths}
    calls = project / "calls"

    def count() -> None:
        for path in paths:
            path.unlink(missing_ok=True)
        calls.write_text(str(calls_of(build)))

    pid, wait = in_child(count)
    assert wait() == 0
    for share in (0.05, 0.5, 0.9, 0.98):
        for path in paths:
            path.unlink(missing_ok=True)
        fatal = int(share * int(calls.read_text()))
        pid, wait = in_child(lambda fatal=fatal: calls_of(build, fatal))
        assert wait() == -signal.SIGKILL
        # A file is there with all its bytes or not at all.
        assert all(path.read_bytes() == wanted[path] for path in paths if path.exists())
    assert {path: path.read_bytes() for path in build()} == wanted
    assert not list(Path("results").rglob(".*.tmp"))
