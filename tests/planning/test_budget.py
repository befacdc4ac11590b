"""What `bcd plan` says that a suite will cost: by hand from stated times, and from real records."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.project import ROOT, calls_of
from test_plan import PAIR, TEACHER, runs, train

from bcd.cli import main
from bcd.config.load import load_params
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.planning import budget, cost, survey
from bcd.runs import expand, store
from bcd.runs.jsonfile import read_as
from bcd.runs.record import RunResult
from bcd.runs.status import Status, Verdict

T, S = 0.9, 0.5  # seconds of a step of teacher and student
STATED = {"coco-retinanet-r101": T, "coco-retinanet-r18": S}


@pytest.fixture(scope="module")
def coco():
    """The paper-sized suite's rows and the statuses of its runs, of which nothing is done."""
    params, suite = load_params(ROOT / "params"), load_suite("coco", ROOT / "params")
    rows = {name: table for name, table in expand.suite_rows(params, suite).items() if name.startswith("retinanet")}
    return params, rows, expand.distinct_runs("coco", rows)


def record(key):
    return store.record(survey.RESULTS / "store" / read_as(RunResult, runs()[key].file("smoke")).store)


def statuses(all_runs, rates):
    missing = {run.key: Status("smoke", run, Verdict.MISSING, "", 0, Path(), None, None) for run in all_runs.values()}
    return [survey.planned(status, rates) for status in missing.values()]


def lines(coco, rates):
    return {line.name: line for line in budget.budget(coco[1], statuses(coco[2], rates), rates)}


def test_a_table_costs_what_the_formula_says(coco):
    found = lines(coco, cost.Rates(stated=STATED))["retinanet-r18"]
    teacher, student, shared = 20 + 270000 * T, 90000 * S, 90000 * T / 3
    assert (found.runs, found.left, found.jobs, found.unknown) == (34, 34, 4, 0)
    assert found.seconds == pytest.approx(teacher + 3 * (20 + shared + 11 * student))
    # Alone, each of the ten distilled students of a seed pays the teacher's pass, and all of them pay the start.
    assert found.apart == pytest.approx(teacher + 3 * (11 * (20 + student) + 10 * shared))


def test_runs_that_tables_share_count_once_in_all(coco):
    found = lines(coco, cost.Rates(stated={"": S}))
    tables = [line for name, line in found.items() if name != "all tables"]
    assert found["all tables"].runs == sum(line.runs for line in tables) - 2
    teacher = 20 + 270000 * S
    assert found["all tables"].seconds == pytest.approx(sum(line.seconds for line in tables) - 2 * teacher)


def test_what_nobody_knows_is_counted_and_in_no_sum(coco):
    found = lines(coco, cost.Rates(stated=STATED))
    assert found["retinanet-r50"].unknown == 33 and found["all tables"].unknown == 66
    assert found["retinanet-r50"].seconds == 20 + 270000 * T
    text = "\n".join(budget.report(coco[0], coco[1], statuses(coco[2], cost.Rates()), cost.Rates(), None))
    assert "100 runs unknown" in text and "coco-retinanet-mv2" in text and "coco2017 20.41 GB" in text


def test_jobs_are_limited_by_the_recipe_and_gpus_multiply(coco):
    limited = {
        k: replace(run, runtime=run.runtime.model_copy(update={"learners": 4, "gpus": 2})) for k, run in coco[2].items()
    }
    rates = cost.Rates(stated=STATED)
    by_name = {line.name: line for line in budget.budget(coco[1], statuses(limited, rates), rates)}
    whole, found = lines(coco, rates)["retinanet-r18"], by_name["retinanet-r18"]
    assert found.jobs == 1 + 3 * 3
    assert found.seconds == pytest.approx(2 * (whole.seconds + 3 * 2 * (20 + 90000 * T / 3)))


def test_the_price_is_that_of_the_hours(coco):
    rates = cost.Rates(stated={"": 36.0}, start_seconds=0.0)
    head, first, *_ = (line.split() for line in budget.report(*coco[:2], statuses(coco[2], rates), rates, 2.0))
    assert head == ["table", "runs", "to", "train", "jobs", "GPU-h", "cost", "groups", "save"]
    hours = 270000 / 100 + 3 * 90000 / 100 * (11 + 1 / 3)
    assert first[:6] == ["retinanet-r50", "34", "34", "4", f"{hours:,.0f}", f"{2 * hours:,.0f}"]


def test_stated_times_are_checked():
    assert cost.parse_stated(["0.3", "a=0.2"], {"a"}) == {"": 0.3, "a": 0.2}
    for wrong in ("a=x", "a=", "-1", "a=0", "nan"):
        with pytest.raises(UserError, match="write SECONDS or MODEL=SECONDS"):
            cost.parse_stated([wrong], {"a"})
    with pytest.raises(UserError, match="did you mean 'pspnet'"):
        cost.parse_stated(["pspne=0.2"], {"pspnet"})


def test_times_come_from_records(project, capsys):
    train(TEACHER)
    train(f"{PAIR}/none/s0", f"{PAIR}/kd/s0")
    none, kd = (record(f"{PAIR}/{method}/s0") for method in ("none", "kd"))
    rates = cost.measured(survey.RESULTS)
    bcd = runs()[f"{PAIR}/bcd/s1"]
    step, share = rates.step(bcd), rates.share(bcd)
    undisturbed = min(kd.train_seconds, kd.train_cpu_seconds / kd.threads) / kd.steps
    assert (step.seconds, step.low, step.high, step.origin, step.samples) == (*[undisturbed] * 3, "measured", 1)
    rest = min(
        kd.group_seconds - kd.setup_seconds - kd.train_seconds - none.train_seconds,
        (kd.group_cpu_seconds - kd.setup_cpu_seconds - kd.train_cpu_seconds - none.train_cpu_seconds) / kd.threads,
    )
    assert (share.seconds, share.origin) == (pytest.approx(rest / 2), "measured") and share.device.startswith("CPU")
    assert rates.share(runs()[f"{PAIR}/none/s1"]).seconds == 0
    found = {one.run.key: one for one in survey.survey("smoke", runs())}
    assert found[f"{PAIR}/kd/s0"].status.left == 0 and found[bcd.key].status.left == 2
    assert found[bcd.key].bytes == rates.size(bcd) > none.weights.bytes
    main.plan(suite="smoke", step_seconds=["smoke-retinanet=0.5"], price=1.0)
    said = capsys.readouterr().out
    assert "3 done" in said and "missing    " not in said
    assert "runs measured (2 records, CPU " in said and "4 runs stated" in said and " runs unknown" in said


def test_a_busy_machine_changes_no_estimate_and_records_that_differ_are_said(project, capsys):
    train(TEACHER)
    train(f"{PAIR}/none/s0")
    train(f"{PAIR}/none/s1")
    calm = cost.measured(survey.RESULTS)
    none = runs()[f"{PAIR}/none/s0"]
    for seed, factor in (("s0", 1), ("s1", 3)):
        folder = read_as(RunResult, runs()[f"{PAIR}/none/{seed}"].file("smoke")).store
        path = survey.RESULTS / "store" / folder / "record.json"
        content = json.loads(path.read_text())
        for name in ("train_seconds", "step_seconds", "group_seconds"):
            content[name] *= 100
        content["train_cpu_seconds"] *= factor
        path.write_text(json.dumps(content))
    busy = cost.measured(survey.RESULTS).step(none)
    assert busy.low < busy.seconds < busy.high and busy.high < 10 * calm.step(none).high
    main.plan(suite="smoke", step_seconds=["0.5"])
    assert "In brackets: by the least and by the most" in capsys.readouterr().out


def test_a_run_without_terms_tells_of_its_distilled_siblings(project):
    train(TEACHER)
    train(f"{PAIR}/none/s0")
    rates = cost.measured(survey.RESULTS)
    kd = runs()[f"{PAIR}/kd/s0"]
    assert rates.step(kd).origin == "measured without terms"
    shared = rates.share(kd)
    assert shared.origin == "estimated" and shared.seconds == pytest.approx(rates.step(kd.teacher).seconds / 3)


class Key(str):
    """A key whose every look-up is a call."""

    __slots__ = ()

    def __hash__(self):
        return super().__hash__()


def test_the_work_grows_with_the_runs_and_not_with_their_square(coco):
    rates = cost.Rates(stated=STATED)
    name, rows = next(iter(coco[1].items()))

    def work(times):
        """Calls for so many tables, of runs of their own."""
        copies = {}
        for number in range(times):
            runs = [[replace(run, key=Key(f"{run.key}-{number}")) for run in row.runs] for row in rows]
            copies[f"{name}-{number}"] = [replace(row, runs=each) for row, each in zip(rows, runs, strict=True)]
        planned = statuses(expand.distinct_runs("coco", copies), rates)
        return calls_of(lambda: budget.budget(copies, planned, rates))

    assert work(20) < 2.2 * work(10)


def test_an_export_is_no_training_of_its_own(project):
    suite = load_suite("chip")
    params = load_params()
    rows = expand.suite_rows(params, suite)
    runs = expand.distinct_runs(suite.name, rows)
    planned = survey.survey(suite.name, runs)
    lines = {line.name: line for line in budget.budget(rows, planned, cost.measured(survey.RESULTS))}
    students = {run.key for run in runs.values() if run.teacher and not run.export}
    assert lines["all tables"].left == len(students) + 2  # and two teachers
    assert lines["all tables"].runs == len(runs) > len(students) + 2
