import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.project import calls_of
from support.suite_results import change_weight, finish_run, finished_fixture, load, project_fixture  # noqa: F401

from bcd import metrics
from bcd.errors import UserError
from bcd.report import figures, render, stats, tables
from bcd.runs.expand import suite_runs, table_rows
from bcd.runs.run import run_file

STUDENT = "semantic/scenes-smoke/smoke-student-from-smoke-teacher"


def build(table="all-labels", **options):
    return tables.build(*load(), table, **options)


def content(table="all-labels"):
    return tables.measure(*load(), table, Path("results"), Path("data"))


def row(content, method, pair=0):
    return next(row for row in content["pairs"][pair]["rows"] if row["method"] == method)


def edit(path, change):
    edge = json.loads(path.read_text())
    change(edge)
    path.write_text(json.dumps(edge))


def student_file(method, repetition=0):
    return Path(f"results/smoke/runs/{STUDENT}/{method}/s{repetition}.json")


# --- numbers -----------------------------------------------------------------------------------------------


def test_means_deviations_and_differences_are_those_of_the_run_files(project):
    measured = content()
    for method in ("none", "bcd", "kd"):
        edges = [json.loads(student_file(method, r).read_text()) for r in range(2)]
        for metric in measured["metrics"]:
            values = [edge["metrics"][metric] for edge in edges]
            cell = row(measured, method)["cells"][metric]
            assert cell["values"] == pytest.approx(values, rel=1e-12)
            assert cell["mean"] == pytest.approx(np.mean(values), rel=1e-12)
            assert cell["std"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2), rel=1e-9, abs=1e-12)
    bcd, none = (row(measured, method)["cells"]["miou"] for method in ("bcd", "none"))
    assert bcd["difference"]["values"] == pytest.approx(np.subtract(bcd["values"], none["values"]))
    assert bcd["difference"]["low"] <= bcd["difference"]["mean"] <= bcd["difference"]["high"]


def test_intervals_and_holm_marks_are_those_of_stats(project):
    params, suite = load()
    measured = content()
    rows = {}
    for one in table_rows(params, suite, suite.tables[0]):
        names = [f"results/{run['rows']}" for run in row(measured, one.method)["runs"]]
        rows[one.method] = [metrics.load_rows(Path(name))[0] for name in names]
    found = {
        (method, metric): difference
        for method in rows
        if method not in ("none", "teacher")
        for metric, difference in stats.compare(
            rows[method], rows["none"], metrics=suite.tables[0].main_metrics
        ).items()
    }
    rejected = stats.holm({key: difference.p for key, difference in found.items()})
    assert measured["comparisons"] == len(found) == 8 * 3
    for (method, metric), difference in found.items():
        cell = row(measured, method)["cells"][metric]["difference"]
        assert (cell["low"], cell["high"], cell["p"]) == (difference.low, difference.high, difference.p)
        assert cell["significant"] == rejected[method, metric]
        assert cell["better"] == (difference.mean > 0)


def test_a_clear_gain_is_bold_a_clear_loss_has_a_dagger_and_equal_methods_have_neither(project):
    params, suite = load()
    for run in suite_runs(params, suite).values():
        if run.teacher:
            # Differences that hardly vary between seeds, so that two seeds suffice.
            edge = json.loads(run_file("smoke", run.teacher, Path("results")).read_text())
            noise = {"bcd": 0.02, "cwd": 0.9}.get(run.method, 0.5)
            finish_run(project, "smoke", run, edge, noise=noise)
    measured = content("few-labels")
    assert render.verdict(row(measured, "none")["cells"]["miou"]) is None
    measured = content()
    assert render.verdict(row(measured, "bcd")["cells"]["miou"]) == "better"
    assert render.verdict(row(measured, "cwd")["cells"]["miou"]) == "worse"
    assert row(measured, "kd")["cells"]["miou"]["difference"]["mean"] == 0
    lines = {line.split(" | ")[0].strip("| "): line for line in render.markdown(measured).splitlines()}
    assert "**" in lines["bcd"] and "†" in lines["cwd"] and not set("*†") & set(lines["kd"])
    latex = render.tex(measured)
    assert re.search(r"\\textbf\{\d+\.\d\d \$\\pm\$ \d+\.\d\d\}", latex) and r"$^{\dagger}$ &" in latex


def test_fewer_fragments_are_better(project):
    params, suite = load()
    table = suite.tables[0].model_copy(update={"main_metrics": ["frag"]})
    suite = suite.model_copy(update={"tables": [table]})
    measured = tables.measure(params, suite, "all-labels", Path("results"), Path("data"))
    worse, better = (row(measured, method)["cells"]["frag"]["difference"] for method in ("cwd", "bcd"))
    assert worse["mean"] > 0 and not worse["better"]
    assert better["mean"] < 0 and better["better"]


def test_the_teacher_is_one_run_that_is_compared_with_nothing(project):
    teacher = row(content(), "teacher")
    assert len(teacher["runs"]) == 1
    for cell in teacher["cells"].values():
        assert cell["std"] is None and cell["difference"] is None


def test_a_table_may_compare_with_another_row_than_none(project):
    params, suite = load()
    table = suite.tables[0].model_copy(update={"baseline": "bcd"})
    suite = suite.model_copy(update={"tables": [table]})
    measured = tables.measure(params, suite, "all-labels", Path("results"), Path("data"))
    bcd, none = (row(content(), method)["cells"]["miou"]["mean"] for method in ("bcd", "none"))
    cells = {method: row(measured, method)["cells"]["miou"]["difference"] for method in ("none", "bcd")}
    assert cells["bcd"] is None and cells["none"]["mean"] == pytest.approx(none - bcd)
    assert "difference to 'bcd'" in measured["caption"] and "difference to bcd" in render.terminal(measured)
    assert figures.forest(measured) != figures.forest(content())


def test_one_seed_gives_intervals_over_images_and_says_so(project):
    params, suite = load()
    suite = suite.model_copy(update={"tables": [suite.tables[0].model_copy(update={"seeds": 1})]})
    measured = tables.measure(params, suite, "all-labels", Path("results"), Path("data"))
    assert row(measured, "bcd")["cells"]["miou"]["std"] is None
    assert "over test images only" in measured["caption"] and "One seed" in measured["caption"]
    assert "±" not in "".join(render.markdown(measured).splitlines()[3:])


# --- traces ------------------------------------------------------------------------------------------------


def test_every_cell_leads_to_existing_files_that_hold_its_value(project):
    build(figure=False)
    measured = json.loads(Path("results/smoke/tables/all-labels.json").read_text())
    for one in measured["pairs"][0]["rows"]:
        for i, run in enumerate(one["runs"]):
            edge = json.loads((Path("results") / run["file"]).read_text())
            assert edge["key"] == run["key"] and edge["evaluation"]["hash"] == run["evaluation"]
            assert (Path("results") / run["record"]).parent == Path("results") / run["store"]
            assert (Path("results") / run["record"]).exists() and (Path("results") / run["rows"]).exists()
            for metric, cell in one["cells"].items():
                assert cell["values"][i] == pytest.approx(edge["metrics"][metric], rel=1e-12)


def test_equal_results_give_equal_bytes(project):
    first = {path: path.read_bytes() for path in build()}
    assert [path.suffix for path in first] == [".md", ".tex", ".csv", ".json", ".png"]
    program = (
        "from pathlib import Path; from bcd import config, tables;"
        "tables.build(config.load_params(), config.load_suite('smoke'), 'all-labels')"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONHASHSEED": "7"})
    assert {path: path.read_bytes() for path in first} == first


def test_the_csv_has_one_line_per_row_and_metric(project):
    build(figure=False)
    measured = content()
    lines = list(csv.DictReader(io.StringIO(Path("results/smoke/tables/all-labels.csv").read_text())))
    assert len(lines) == len(measured["pairs"][0]["rows"]) * len(measured["metrics"])
    line = next(line for line in lines if line["method"] == "bcd" and line["metric"] == "biou")
    cell = row(measured, "bcd")["cells"]["biou"]
    assert float(line["mean"]) == cell["mean"] and float(line["low"]) == cell["difference"]["low"]
    assert line["significant"] in ("true", "false") and line["runs"] == "2"
    assert all(line["p"] == "" for line in lines if line["method"] in ("none", "teacher"))


def test_the_caption_says_what_a_reader_must_know(project):
    text = content()["caption"]
    for fact in (
        "6 images",
        "split 'test'",
        "generated",
        "2 seeds",
        "no pretrained weights",
        "MACs at 40 x 32",
        "Holm",
    ):
        assert fact in text
    for file in Path("results/smoke").rglob("s*.json"):
        edit(file, lambda edge: edge["data"].update(origin="mirror", official=False, note="a repack"))
    assert "not the official files: a repack" in content()["caption"]


def test_another_teacher_dataset_is_named(project):
    assert "trained on scenes-smoke" in render.markdown(content("few-labels"))


def test_show_prints_the_main_metrics_of_a_built_table(project):
    with pytest.raises(UserError, match="all-labels.json is missing"):
        tables.show(Path("results"), "smoke", "all-labels")
    build(figure=False)
    text = tables.show(Path("results"), "smoke", "all-labels")
    assert f"{row(content(), 'bcd')['cells']['conn']['mean']:.2f}" in text and "mIoU" in text
    assert max(map(len, text.splitlines())) <= 100


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
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(UserError, match="other data than data/scenes-smoke: .* and 9 more"):
        build()
    shutil.rmtree("data")
    build(figure=False)


def test_changed_rows_are_refused(project):
    edge = json.loads(student_file("cwd").read_text())
    path = next(Path("results/store", edge["store"]).glob("eval-*[0-9a-f].npz"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=rf"{path} is missing or changed.*{STUDENT}/cwd/s0"):
        build()
    path.unlink()
    with pytest.raises(UserError, match="is missing or changed"):
        build()


def test_code_stale_runs_are_noted_not_refused(project):
    edit(student_file("brd"), lambda edge: edge["code"].update(train="an older one"))
    build(figure=False)
    for kind in ("md", "tex", "json"):
        text = Path(f"results/smoke/tables/all-labels.{kind}").read_text()
        assert re.search(r"Code-stale: [^:]*: smoke-student from smoke-teacher on scenes-smoke: brd \(s0\)\.", text)
    assert "Code-stale" not in render.markdown(content("few-labels"))


def test_an_unknown_table_names_the_nearest(project):
    with pytest.raises(UserError, match="did you mean 'all-labels'"):
        build("all-label")


# --- renderings --------------------------------------------------------------------------------------------


def test_the_latex_is_balanced_and_every_line_has_all_its_columns(project):
    lines = render.tex(content()).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("%"))
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))
    for name in ("table*", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0
    columns = None
    for line in lines:
        if match := re.match(r"\\begin\{tabular\}\{(l r*|lr*)\}", line):
            columns = len(match[1])
        elif line.endswith(r"\\") and not line.startswith(r"\multicolumn"):
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1


@given(st.text())
def test_escaped_text_holds_nothing_that_latex_would_act_on(text):
    escaped = render.tex_escape(text)
    commands = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[{}$&#%_]"
    symbols = r"\$\\(pm|times|Delta|le|ge)\$|\$\^\{\\(dagger|circ)\}\$|\$-\$"
    assert not re.search(r"[\\{}$&#%_~^<>|]", re.sub(f"{commands}|{symbols}", "", escaped))


def test_undefined_numbers_are_said_to_be_so(project):
    measured = content()
    cell = row(measured, "bcd")["cells"]["conn"]
    cell["mean"] = None
    cell["difference"].update(mean=None, low=None, high=None, p=None, significant=False)
    for text in (render.markdown(measured), render.tex(measured)):
        assert len(re.findall(r"n/a", text)) == 2
    assert "n/a" in render.terminal(measured)


def test_building_without_a_figure_imports_neither_matplotlib_nor_torch(project):
    program = (
        "import sys; from bcd import config, tables;"
        "tables.build(config.load_params(), config.load_suite('smoke'), 'few-labels', figure=False);"
        "assert not {'torch', 'matplotlib', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_figure_has_a_panel_for_each_pair_and_main_metric(project):
    measured = content()
    measured["pairs"].append(content("few-labels")["pairs"][0])
    figure = figures._figure(measured)
    blocks = [block.axes for block in figure.subfigs]
    assert [len(axes) for axes in blocks] == [3, 3]
    assert [text.get_text() for text in blocks[1][0].get_yticklabels()] == ["bcd"]
    drawn = [value for line in blocks[1][0].lines for value in line.get_xdata()]
    found = row(measured, "bcd", pair=1)["cells"]["miou"]["difference"]
    assert set(drawn) == {0, found["mean"], found["low"], found["high"], *found["values"]}
    assert figures.forest(measured) == figures.forest(measured)


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
