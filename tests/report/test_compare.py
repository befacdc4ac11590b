"""Two rows side by side: their numbers are those of the table, and parts are those of the whole."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.suite_results import load
from support.tables import RESULTS, STUDENT, cell, content, edit, lose, row, student_file

from bcd import metrics
from bcd.errors import UserError
from bcd.files import sha256_file
from bcd.report.compare import compare_rows
from bcd.report.measure import measure

compared = partial(compare_rows, table="all-labels")


def of(params_and_suite, a="none", b="bcd", **options):
    return compared(*params_and_suite, a, b, **options)


def refused(*words, **options):
    with pytest.raises(UserError) as error:
        of(load(), *words, **options)
    return str(error.value)


def test_the_numbers_are_those_of_the_table(project):
    measured = content()
    for method in ("bcd", "cwd", "kd"):
        found = of(load(), "none", method)
        assert [one.metric for one in found.metrics] == measured.metrics
        for one in found.metrics:
            own, base = cell(measured, method, one.metric), cell(measured, "none", one.metric)
            assert (one.b, one.b_std, one.a, one.a_std) == (own.mean, own.std, base.mean, base.std)
            if said := own.difference:
                assert (one.values, one.mean, one.low, one.high, one.p) == (
                    said.values, said.mean, said.low, said.high, said.p,
                )  # fmt: skip
        assert found.b.runs == row(measured, method).runs and found.repetitions == ["s0", "s1"]
        assert (found.images, found.split, found.dataset) == (6, "test", "scenes-smoke")


@pytest.mark.parametrize("table", ["detection", "instance"])
def test_the_numbers_of_detectors_are_those_of_the_table(project, table):
    measured = content(table)
    found = of(load(), table=table)
    for one in found.metrics:
        own = cell(measured, "bcd", one.metric)
        assert one.b == own.mean and one.a == cell(measured, "none", one.metric).mean
        if said := own.difference:
            assert (one.mean, one.low, one.high, one.p) == (said.mean, said.low, said.high, said.p)
    kinds = {"detection": [""], "instance": ["", "_mask", "_boundary"]}[table]
    assert [one.metric for one in found.sizes] == [f"ap_{size}{kind}" for kind in kinds for size in "sml"]
    small, medium, _ = found.sizes[:3]
    assert small.mean == pytest.approx(found.metrics[0].mean) and medium.mean is None, "all objects here are small"


def test_swapped_rows_have_the_opposite_difference(project):
    there, back = (of(load(), *rows, metrics=["miou"]) for rows in (("none", "bcd"), ("bcd", "none")))
    one, other = there.metrics[0], back.metrics[0]
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    assert there.up and not there.down
    assert [(moved.image, moved.seeds_down) for moved in back.down] == [(m.image, m.seeds_up) for m in there.up]


def test_a_metric_is_the_mean_of_its_classes(project):
    """Where every class is there, as for mIoU here, so is their difference the mean of the classes' differences."""
    found = of(load())
    names = load()[0].datasets["scenes-smoke"].classes
    for metric in ("miou", "biou", "conn"):
        whole = next(one for one in found.metrics if one.metric == metric)
        classes = [one for one in found.classes if one.metric == metric]
        assert [one.part for one in classes] == names
        assert np.mean([one.b for one in classes]) == pytest.approx(whole.b)
        assert np.mean([one.mean for one in classes]) == pytest.approx(whole.mean)
    stored = [metrics.load_rows(RESULTS / run.rows)[0] for run in found.b.runs]
    sky = next(one for one in found.classes if (one.metric, one.part) == ("miou", "sky"))
    assert sky.b == pytest.approx(np.mean([metrics.per_class(rows, "miou")[names.index("sky")] for rows in stored]))


def test_a_mean_over_categories_is_the_detectors_ap(project):
    found = of(load(), table="detection")
    classes = [one for one in found.classes if one.metric == "ap" and one.b is not None]
    assert {one.part for one in classes} <= set(load()[0].datasets["scenes-smoke"].things)
    assert np.mean([one.mean for one in classes]) == pytest.approx(found.metrics[0].mean) and found.metrics[0].mean > 0


def test_metrics_may_be_chosen_and_the_first_orders_the_images(project):
    found = of(load(), metrics=["conn", "aacc", "conn"], images=2)
    assert [one.metric for one in found.metrics] == ["conn", "aacc"]
    assert {one.metric for one in found.classes} == {"conn"}, "aAcc has no classes"
    assert found.moved_by == "conn" and len(found.up) == 2
    assert of(load(), metrics=["aacc"]).classes == []
    assert "did you mean 'miou'" in refused("none", "bcd", metrics=["miuo"])
    assert "'ap' is not defined" in refused("none", "bcd", metrics=["ap"])


def test_images_are_ordered_by_what_they_gain_by_themselves(project):
    found = of(load(), images=6)
    rows, names = metrics.load_rows(RESULTS / found.b.runs[1].rows)
    base = metrics.load_rows(RESULTS / found.a.runs[1].rows)[0]
    gains = [one.difference for one in found.up]
    assert gains == sorted(gains, reverse=True) and {one.image for one in found.up} == set(names)
    for image in found.up:
        assert image.difference == pytest.approx(image.b - image.a) and image.seeds_up == 2
    one = of(load(), "none/s1", "bcd/s1", images=6).up[0]
    values = [
        metrics.summarise({name: counts[[names.index(one.image)]] for name, counts in some.items()})["miou"]
        for some in (base, rows)
    ]
    assert [one.a, one.b] == pytest.approx(values)


def test_equal_rows_move_no_image(project):
    """`kd` predicts what `none` does."""
    found = of(load(), "none", "kd")
    assert found.up == found.down == [] and all(one.mean == 0 and one.p == 1 for one in found.metrics)


def test_a_teacher_stands_beside_every_seed(project):
    found = of(load(), "teacher", "bcd", metrics=["miou"])
    one = found.metrics[0]
    assert found.repetitions == ["s0", "s1"] and len(one.values) == 2
    assert one.a_std is None and one.b_std is not None and one.mean == pytest.approx(one.b - one.a)
    assert any("The teacher is one run" in said for said in found.caveats)


# --- what is said of it --------------------------------------------------------------------------------------------


def said(**options):
    return " ".join(of(load(), **options).caveats)


def test_nobody_takes_a_p_value_for_a_corrected_one(project):
    for options in ({}, {"a": "kd", "b": "bcd"}, {"a": "teacher"}):
        assert "No p-value or interval is corrected: no family of comparisons was declared" in said(**options)
    assert "table all-labels, which has it among 24 comparisons" in said()
    assert content().comparisons == 24
    assert "none of the differences that table all-labels declares" in said(a="kd")
    assert "none of the differences" in said(a="teacher")


def test_one_seed_says_that_it_knows_of_no_others(project):
    assert "over test images only: other seeds may differ" in said(a="none/s0", b="bcd/s0")
    assert "over seeds and test images" in said()


def test_segmentation_says_that_it_has_no_sizes(project):
    assert "no breakdown by size" in said() and of(load()).sizes == []
    assert "no breakdown by size" not in said(table="detection")


def test_runs_of_older_code_are_named(project):
    edit(student_file("bcd", 1), lambda result: result["code"].update(evaluate="0" * 16))
    assert "Code-stale: the code has changed since bcd (s1) was made." in said()


# --- what is refused -----------------------------------------------------------------------------------------------


def test_missing_runs_are_named_with_what_makes_them(project):
    lose("bcd/s1")
    words = refused()
    assert f"missing: {STUDENT}/bcd/s1" in words and "run `snakemake --config suite=smoke`" in words
    assert "--partial" in words
    found = of(load(), partial=True)
    assert found.repetitions == ["s0"] and any("PARTIAL: bcd lacks s1." in one for one in found.caveats)
    assert of(load(), "none", "kd").repetitions == ["s0", "s1"], "what is not compared may be missing"
    lose("bcd/s0")
    assert "--partial" not in refused(), "there is nothing to compare"
    assert "no run of bcd is there" in refused(partial=True)


def test_of_a_suite_that_was_never_run_that_is_all_that_is_said(project):
    for path in Path("results/smoke").rglob("s*.json"):
        path.unlink()
    make = "run `snakemake --config suite=smoke` to make them"
    assert refused() == f"suite 'smoke': nothing has been run yet of the 5 runs that this needs; {make}"
    with pytest.raises(UserError, match=f"nothing has been run yet of the 19 runs that this needs; {make}$"):
        measure(*load(), load()[1].tables[0], RESULTS, Path("data"))


def test_seeds_must_be_shared(project):
    assert refused("none/s0", "bcd/s1") == "no seed in common: none/s0 has s0 and bcd/s1 has s1; name runs of one seed"
    lose("bcd/s1", "none/s0")
    assert "no seed in common: none has s1 and bcd has s0" in refused(partial=True)


def test_images_must_be_the_same(project):
    """A table of two datasets: the rows of one cannot be paired with those of the other."""
    params, suite = load()
    first, few = (next(table for table in suite.tables if table.name == name) for name in ("all-labels", "few-labels"))
    both = first.model_copy(update={"pairs": [*first.pairs, *few.pairs], "methods": ["none", "bcd"]})
    joined = params, suite.model_copy(update={"tables": [both]})
    rows = [f"{dataset}/smoke-student-from-smoke-teacher" for dataset in ("scenes-smoke", "scenes-smoke-few")]
    found = of(joined, f"{rows[0]}/none", f"{rows[1]}/bcd")
    assert any("different pairs" in one for one in found.caveats), "few labels are evaluated on the same images"
    for run in found.b.runs:
        path = RESULTS / run.rows
        counts, names = metrics.load_rows(path)
        metrics.save_rows(path, counts, [f"other/{name}" for name in names])
        sha256 = sha256_file(path)
        edit(RESULTS / run.file, lambda result, sha256=sha256: result["evaluation"].update(rows_sha256=sha256))
    with pytest.raises(UserError, match="evaluated on different images; compare rows of one dataset"):
        of(joined, found.a.address, found.b.address)


def test_changed_rows_are_refused(project):
    path = RESULTS / row(content(), "bcd").runs[0].rows
    path.write_bytes(path.read_bytes() + b"x")
    assert "missing or changed since" in refused()


def test_a_suite_without_results_says_what_builds_them(project):
    for path in Path("results/smoke").rglob("*.json"):
        path.unlink()
    assert "run `snakemake --config suite=smoke` to make them" in refused()
