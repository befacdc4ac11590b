"""What is said of the claims: the rule of docs/claims.md, in words that say no more than the tables."""

import pytest
from support import tables

from bcd.report.content import Comparison
from bcd.report.page.inference import Size, cost_claim
from bcd.report.page.verdicts import claims, judge, row_words, task_of


def compared(mean=2.0, low=1.0, high=3.0, *, significant=False, detectable=None, seeds=3) -> Comparison:
    return Comparison(
        values=[mean] * seeds, mean=mean, low=low, high=high, p=0.04, significant=significant,
        better=bool(mean and mean > 0), detectable=detectable,
    )  # fmt: skip


BETTER, WORSE, UNMARKED = compared(significant=True), compared(-2.0, -3.0, -1.0, significant=True), compared()


@pytest.mark.parametrize(
    ("rows", "judgement"),
    [
        ([BETTER, BETTER], "supported"),
        ([BETTER, UNMARKED], "partly supported"),
        ([BETTER, WORSE], "partly supported"),
        ([UNMARKED, WORSE], "not supported"),
        ([UNMARKED], "not supported"),
        ([WORSE, WORSE], "contradicted"),
        ([], "not testable here"),
    ],
)
def test_the_rule_is_that_of_the_claims_page(rows, judgement):
    assert judge(rows) == judgement


def test_a_mark_is_said_with_its_interval_and_its_family():
    assert row_words("bcd", "biou", compared(5.95, 4.3, 7.6, significant=True), 21) == (
        "Boundary IoU is 5.95 points higher with bcd than with none (95 % interval +4.30 to +7.60), significantly so "
        "after Holm's correction over 21 comparisons."
    )
    assert row_words("bcd", "conn", WORSE, 21).startswith("Region connectivity is 2.00 points lower with bcd")


def test_no_mark_is_not_no_effect():
    said = row_words("bcd", "biou", compared(0.16, -0.91, 1.23, detectable=2.13), 9)
    assert said == (
        "No difference in Boundary IoU is shown for bcd: +0.16 points (95 % interval -0.91 to +1.23). That is not "
        "evidence of no effect: one of 2.1 points would have been marked with a probability of 80 %."
    )
    unknown = row_words("bcd", "biou", compared(0.16, -0.91, 1.23), 9)
    assert unknown.endswith("That is not evidence of no effect.")


def test_an_interval_without_zero_is_no_mark():
    said = row_words("brd", "biou", UNMARKED, 9)
    assert "The interval excludes 0, but the difference does not survive Holm's correction" in said
    assert said.endswith("not shown.") and "significantly" not in said


def test_one_seed_is_said():
    assert row_words("bcd", "ap", compared(seeds=1, significant=True), 4).endswith("knows of other test images only.")


@pytest.mark.parametrize(
    ("found", "said"), [(None, "has no run"), (compared(None, None, None), "no difference that is defined")]
)
def test_what_is_missing_or_undefined_is_said(found, said):
    assert said in row_words("bcd", "biou", found, 4)


def named(found, title):
    return next(claim for claim in found if claim.title == title)


def test_every_claim_is_judged_on_every_task_that_can_show_it(project):
    tables.finish_clearly(project)
    contents = [tables.content(name) for name in ("all-labels", "detection", "instance")]
    assert [task_of(one) for one in contents] == ["semantic", "detection", "instance"]
    found = claims(contents)
    boundary = {one.task: one for one in named(found, "Boundary completeness").verdicts}
    assert set(boundary) == {"semantic", "instance"}  # a box has no boundary
    semantic = boundary["semantic"]
    marks = {row.method: row.difference.verdict for row in semantic.evidence}
    assert marks == {"brd": None, "bcd": "better", "bckd": None}
    assert semantic.judgement == "partly supported" and "1 of 3 rows is marked better" in semantic.words
    assert {one.task for one in named(found, "Detection and masks").verdicts} == {"detection", "instance"}


def test_each_half_alone_is_judged_by_what_it_is_to_mend(project):
    tables.finish_clearly(project)
    found = claims([tables.content()])
    for title, method, metric in (
        ("Boundaries alone", "bcd-boundary", "biou"),
        ("Context alone", "bcd-context", "conn"),
    ):
        verdict = named(found, title).verdicts[0]
        assert [(row.method, row.metric) for row in verdict.evidence] == [(method, metric)]
        assert verdict.judgement == judge([tables.content().pairs[0].row(method).cells[metric].difference])
    without = tables.content(methods=["none", "bcd"])
    verdict = named(claims([without]), "Context alone").verdicts[0]
    assert verdict.judgement == "not testable here"
    assert verdict.words.startswith("It takes a table that tests region connectivity of bcd-context beside none")


def test_the_same_runs_in_two_tables_count_once(project):
    one = tables.content("all-labels")
    other = one.model_copy(update={"table": "again"})
    verdict = named(claims([one, other]), "Boundary completeness").verdicts[0]
    assert [row.table for row in verdict.evidence] == ["all-labels"] * 3


def test_a_table_against_another_baseline_answers_no_claim(project):
    verdict = named(claims([tables.content(baseline="kd")]), "Boundary completeness").verdicts[0]
    assert verdict.judgement == "not testable here" and "It takes a table that tests Boundary IoU" in verdict.words


def test_a_partial_table_says_that_it_may_change(project):
    tables.lose("bcd/s1")
    verdict = named(claims([tables.content(partial=True)]), "Boundary completeness").verdicts[0]
    assert verdict.words.endswith("Runs are missing, so this may change.")


def test_cost_is_compared_run_by_run(project):
    content = tables.content("all-labels")
    keys = [run.key for row in content.pairs[0].rows for run in row.runs]
    same = {key: Size(6128, 842880) for key in keys}
    verdict = cost_claim([content], same).verdicts[0]
    assert verdict.judgement == "supported" and "smoke-student (6.13 k parameters, 843 k MACs)" in verdict.words
    larger = same | {f"{tables.STUDENT}/bcd/s0": Size(6129, 842880)}
    verdict = cost_claim([content], larger).verdicts[0]
    assert verdict.judgement == "contradicted" and verdict.words.startswith("1 of 16 distilled students")
    assert cost_claim([content], {}).verdicts[0].judgement == "not testable here"


def test_a_detector_that_computes_more_where_it_finds_more_is_no_other_network(project):
    content = tables.content("instance")
    keys = [run.key for row in content.pairs[0].rows for run in row.runs]
    student = next(key for key in keys if "/bcd/" in key)
    same = {key: Size(14_300, 3_000_000) for key in keys}
    verdict = cost_claim([content], same | {student: Size(14_300, 3_060_000)}).verdicts[0]
    assert verdict.judgement == "supported" and verdict.words.endswith("differ by +0 to +2 %.")
    verdict = cost_claim([content], same | {student: Size(14_301, 3_000_000)}).verdicts[0]
    assert verdict.judgement == "contradicted"


def test_operations_of_a_segmentor_are_those_of_its_network(project):
    content = tables.content()
    sizes = {run.key: Size(6128, 842_880) for row in content.pairs[0].rows for run in row.runs}
    larger = sizes | {f"{tables.STUDENT}/bcd/s0": Size(6128, 842_881)}
    assert cost_claim([content], larger).verdicts[0].judgement == "contradicted"
