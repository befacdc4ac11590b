import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from bcd import metrics
from bcd.errors import UserError
from bcd.report import stats


def mean_of_rows(rows, weights=None):
    """A summariser of another task: the mean over images of one number per image."""
    values = rows["x"]
    return {"x": float(values.mean()) if weights is None else weights @ values / weights.sum(1)}


def pair(seeds, images, *, effect=0.0, seed_std=0.0, image_std=0.0, noise=0.0, draw=None):
    """Two methods whose difference is `effect` plus deviations of seeds, images and their interaction."""
    draw = draw or np.random.default_rng(1)
    base = draw.normal(size=(seeds, images))
    change = effect + seed_std * draw.normal(size=(seeds, 1)) + image_std * draw.normal(size=(1, images))
    change = change + noise * draw.normal(size=(seeds, images))
    return [{"x": x} for x in base + change], [{"x": x} for x in base]


def compare(a, b, **options):
    return stats.compare(a, b, metrics=("x",), summarise=mean_of_rows, **{"replicates": 400, **options})["x"]


def semantic_rows(noise, images=12, seed=0):
    draw = np.random.default_rng(seed)
    counts = []
    for _ in range(images):
        label = np.kron(draw.integers(0, 3, (4, 4)), np.ones((5, 5))).astype(np.uint8)
        pred = np.where(draw.random(label.shape) < noise, draw.integers(0, 3, label.shape), label)
        counts.append(metrics.image_counts(pred.astype(np.uint8), label, classes=3))
    return metrics.stack(counts)


def test_semantic_rows_of_a_better_method():
    a = [semantic_rows(0.1, seed=s) for s in range(4)]
    b = [semantic_rows(0.3, seed=s) for s in range(4)]
    keys = list(metrics.summarise(a[0]))
    result = stats.compare(a, b, metrics=keys, replicates=200)
    assert list(result) == keys
    gaps = [metrics.summarise(x)["miou"] - metrics.summarise(y)["miou"] for x, y in zip(a, b, strict=True)]
    miou = result["miou"]
    assert miou.mean == pytest.approx(np.mean(gaps)) and miou.std == pytest.approx(np.std(gaps, ddof=1))
    assert 0 < miou.low < miou.mean < miou.high and miou.p < 0.05


def test_identical_methods_do_not_differ():
    rows = [semantic_rows(0.2, seed=s) for s in range(3)]
    for difference in stats.compare(rows, rows, metrics=("miou", "frag"), replicates=100).values():
        assert astuple(difference)[:5] == (0, 0, 0, 0, 1)
        assert stats.detectable(difference, 0.05) == 0


def test_the_same_call_gives_the_same_numbers():
    a, b = pair(3, 30, effect=0.1, seed_std=0.2, noise=0.5)
    assert compare(a, b, seed=5) == compare(a, b, seed=5)
    assert compare(a, b, seed=5) != compare(a, b, seed=6)


def test_swapping_the_methods_mirrors_the_result():
    a, b = pair(4, 40, effect=0.2, seed_std=0.2, image_std=0.5)
    one, other = compare(a, b), compare(b, a)
    assert one.mean == -other.mean and one.p == other.p
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_few_seeds_get_the_t_interval_that_a_bootstrap_misses():
    a, b = pair(5, 40, seed_std=1.0)
    result = compare(a, b)
    half = distributions.t.ppf(0.975, 4) * result.std / math.sqrt(5)
    assert (result.low, result.high) == pytest.approx((result.mean - half, result.mean + half), rel=1e-6)


def test_spread_over_seeds_and_over_images_add_up():
    a, b = pair(3, 40, seed_std=0.3, image_std=1.0)
    result = compare(a, b, replicates=5000)
    image_means = np.mean([x["x"] - y["x"] for x, y in zip(a, b, strict=True)], axis=0)
    parts = np.array([result.std**2 / 3, image_means.var() / 40])
    df = parts.sum() ** 2 / (parts**2 / [2, 39]).sum()
    half = distributions.t.ppf(0.975, df) * math.sqrt(parts.sum())
    assert result.high - result.low == pytest.approx(2 * half, rel=0.03)
    assert result.p == pytest.approx(2 * distributions.t.sf(abs(result.mean) / math.sqrt(parts.sum()), df), abs=0.02)


def test_the_bootstrap_draws_seeds_and_images():
    # With interaction alone the bootstrap is wider than the t interval, so it sets both ends.
    seeds, images = 20, 40
    a, b = pair(seeds, images, noise=math.sqrt(seeds * images))
    result = compare(a, b, replicates=5000)
    change = np.array([x["x"] - y["x"] for x, y in zip(a, b, strict=True)])
    draw = np.random.default_rng(9)
    drawn = ((draw.integers(0, seeds, seeds), draw.integers(0, images, images)) for _ in range(5000))
    low, high = np.quantile([change[np.ix_(*chosen)].mean() for chosen in drawn], [0.025, 0.975])
    assert high - low > 6
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.25)


@pytest.mark.parametrize("scale", [{"seed_std": 0.1}, {"image_std": 1.0}, {"seed_std": 0.1, "image_std": 1.0}])
def test_intervals_cover_the_truth(scale):
    draw = np.random.default_rng(0)
    trials = 150
    hits = rejections = 0
    for trial in range(trials):
        result = compare(*pair(5, 60, effect=0.3, draw=draw, **scale), replicates=200, seed=trial)
        hits += result.low <= 0.3 <= result.high
        null = compare(*pair(5, 60, draw=draw, **scale), replicates=200, seed=trial)
        rejections += null.p <= 0.05
        assert (null.p <= 0.05) == (not null.low <= 0 <= null.high) or 0.02 < null.p < 0.08
    # Three standard errors of a binomial around 95 %; the plain bootstrap reaches about 84 % in the first case.
    margin = 3 * math.sqrt(0.05 * 0.95 / trials)
    assert hits / trials > 0.95 - margin and rejections / trials < 0.05 + margin


def test_one_seed_gives_an_interval_over_images():
    a, b = pair(1, 50, effect=1.0, noise=0.5)
    result = compare(a, b)
    assert math.isnan(result.std)
    assert 0 < result.low < result.mean < result.high and result.p < 0.05


def test_an_undefined_metric_stays_undefined():
    rows = [{"x": np.full(4, np.nan)}] * 2
    result = compare(rows, rows)
    assert all(math.isnan(value) for value in astuple(result))
    assert math.isnan(stats.detectable(result, 0.05))


def known(seeds, images, *, seed_std=0.0, image_std=0.0, noise=0.0):
    """What `compare` says on average of a `pair` with such noise."""
    by_seed, by_image, both = seed_std**2 / seeds, image_std**2 / images, noise**2 / (seeds * images)
    error, df = stats.standard_error(by_seed + both, seeds - 1, by_image + both, images - 1)
    kept = 1 - 1 / seeds, 1 - 1 / images  # what resampling keeps of a variance
    spread = kept[0] * by_seed + kept[1] * by_image + (sum(kept) + math.prod(kept)) * both
    return stats.Difference(0, 0, 0, 0, 1, error, df, math.sqrt(spread), 0)


@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize(
    ("seeds", "scale"),
    [
        (2, {"seed_std": 1.0}),
        (5, {"seed_std": 1.0}),
        (5, {"image_std": 5.0}),
        (1, {"image_std": 5.0}),
        (5, {"seed_std": 1.0, "image_std": 3.0}),
        (10, {"noise": 5.0}),
    ],
)
def test_a_detectable_difference_is_found_with_the_probability_that_is_claimed(seeds, scale, level):
    draw, trials = np.random.default_rng(3), 200
    effect = stats.detectable(known(seeds, 60, **scale), level)
    found = [compare(*pair(seeds, 60, effect=effect, draw=draw, **scale), seed=trial) for trial in range(trials)]
    power = np.mean([one.p <= level and one.mean > 0 for one in found])
    # Three standard errors of a binomial. Both p-values must be small, which costs a little where both decide.
    assert abs(power - stats.POWER) <= 3 * math.sqrt(stats.POWER * (1 - stats.POWER) / trials) + 0.05


def test_the_detectable_difference_by_hand():
    found = compare(*pair(5, 40, seed_std=1.0))
    # Paired t-test over five seeds: the noncentral t with 4 degrees of freedom is above 2.776 with 80 %.
    assert (found.error, found.df) == (pytest.approx(found.std / math.sqrt(5)), pytest.approx(4))
    needed = stats.detectable(found, 0.05) / found.error
    assert distributions.nct.sf(distributions.t.ppf(0.975, 4), 4, needed) == pytest.approx(0.8, abs=1e-4)
    assert stats.detectable(found, 0.01) > stats.detectable(found, 0.05) > found.error * distributions.t.ppf(0.975, 4)


def test_no_difference_is_detectable_where_the_bootstrap_has_too_few_replicates():
    found = compare(*pair(5, 40, effect=9.0, seed_std=1.0), replicates=99)
    assert found.p >= found.least_p == 0.02
    assert math.isinf(stats.detectable(found, 0.0199)) and math.isfinite(stats.detectable(found, 0.02))


def observed(mean, std, seeds, over_images=0.0, images=300):
    """A comparison of so many seeds with that deviation between them, and that variance over images."""
    by_seed = std**2 / seeds
    error, df = stats.standard_error(by_seed, seeds - 1, over_images, images - 1)
    spread = math.sqrt((1 - 1 / seeds) * by_seed + over_images)
    return stats.Difference(mean, std, 0, 0, 1, error, df, spread, 0)


@pytest.mark.parametrize(("effect", "needed"), [(0.5, 34), (0.8, 15), (1.0, 10), (0.2, 199)])
def test_seeds_needed_are_those_of_the_paired_t_test(effect, needed):
    """Cohen's small, medium and large effects at 5 % and 80 %, as every table of sample sizes has them."""
    for sign, scale in ((1, 1.0), (-1, 7.0)):
        found = observed(sign * effect * scale, scale, 5)
        assert stats.seeds_needed(found, 0.05, seeds=5, images=300) == needed


def test_more_chance_takes_more_seeds_and_images_set_a_limit():
    def needed(over_images, level=0.05):
        return stats.seeds_needed(observed(0.5, 1.0, 5, over_images), level, seeds=5, images=300)

    found = [needed(variance) for variance in (0.0, 0.01, 0.02)]
    assert found == sorted(set(found)) and needed(0.01, 0.005) > found[1]
    # Of the images alone 2.8 standard errors would be seen, which are 0.56 here: no number of seeds will do.
    assert needed(0.04) is None and stats.detectable(observed(0.5, 0.0, 5, 0.04), 0.05) == pytest.approx(0.56, abs=0.01)


def test_so_many_seeds_are_enough_and_one_less_is_not():
    """The formula's own precision at n seeds, from the variances that were found."""
    found = observed(0.6, 1.0, 3, 0.015, 60)
    n = stats.seeds_needed(found, 0.02, seeds=3, images=60)
    assert stats.detectable(observed(0.6, 1.0, n, 0.015, 60), 0.02) <= 0.6
    assert stats.detectable(observed(0.6, 1.0, n - 1, 0.015, 60), 0.02) > 0.6


def test_seeds_needed_in_simulation():
    """A difference of 0.8 deviations between seeds, over images that differ, too, is found in four of five trials."""
    draw, trials = np.random.default_rng(5), 200
    first = known(3, 60, seed_std=1.0, image_std=1.0)
    found = replace(first, mean=0.8, std=1.0)
    n = stats.seeds_needed(found, 0.05, seeds=3, images=60)
    drawn = [pair(n, 60, effect=0.8, seed_std=1.0, image_std=1.0, draw=draw) for _ in range(trials)]
    hits = [one.p <= 0.05 and one.mean > 0 for one in (compare(*two, seed=i) for i, two in enumerate(drawn))]
    margin = 3 * math.sqrt(stats.POWER * (1 - stats.POWER) / trials) + 0.05
    assert abs(np.mean(hits) - stats.POWER) <= margin


def test_seeds_needed_are_unknown():
    assert stats.seeds_needed(observed(0.5, math.nan, 1), 0.05, seeds=1, images=300) is None
    assert stats.seeds_needed(observed(0.0, 1.0, 5), 0.05, seeds=5, images=300) is None
    assert stats.seeds_needed(observed(0.01, 1.0, 5), 0.05, seeds=5, images=300) is None  # more than are looked at
    nothing = compare([{"x": np.full(4, np.nan)}] * 2, [{"x": np.full(4, np.nan)}] * 2)
    assert stats.seeds_needed(nothing, 0.05, seeds=2, images=4) is None


def test_unpaired_input_is_refused():
    a, b = pair(3, 10)
    with pytest.raises(UserError, match="3 seeds with 2"):
        compare(a, b[:2])
    with pytest.raises(UserError, match="0 seeds"):
        compare([], [])
    with pytest.raises(UserError, match="different images"):
        compare(a, [*b[:2], {"x": b[2]["x"][1:]}])
    with pytest.raises(UserError, match="'miou' was not evaluated; choose from x"):
        stats.compare(a, b, summarise=mean_of_rows)


@pytest.mark.parametrize("comparisons", [1, 50, 51, 84, 321])
def test_a_clear_difference_is_marked_however_many_comparisons_there_are(comparisons):
    """With 2000 replicates no p-value is below 0.001, and more than 50 comparisons ask the first one for less."""
    replicates = stats.enough_replicates(comparisons)
    assert (replicates == stats.REPLICATES) == (comparisons <= 50)
    clear = compare(*pair(5, 40, effect=9.0), replicates=replicates)
    family = {"clear": clear.p} | {str(i): 1.0 for i in range(comparisons - 1)}
    assert stats.holm(family)["clear"]


def test_holm_by_hand():
    # Sorted: .01 <= .05/4, .013 <= .05/3, .04 > .05/2 stops, so .045 stays although it is below .05/1.
    assert stats.holm({"a": 0.04, "b": 0.01, "c": 0.045, "d": 0.013}) == {"a": False, "b": True, "c": False, "d": True}
    assert stats.holm({"a": 0.04, "b": math.nan}) == {"a": False, "b": False}
    assert stats.holm({"a": 0.02, "b": math.nan}) == {"a": True, "b": False}
    assert stats.holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_bonferroni_and_no_correction(pvalues):
    rejected = stats.holm(dict(enumerate(pvalues)))
    for key, p in enumerate(pvalues):
        assert rejected[key] >= (p <= 0.05 / len(pvalues))
        assert rejected[key] <= (p <= 0.05)


def test_mean_std():
    assert stats.mean_std([1, 2, 4]) == (pytest.approx(7 / 3), pytest.approx(math.sqrt(7 / 3)))
    mean, std = stats.mean_std(iter([3.0]))
    assert mean == 3 and math.isnan(std)
    assert all(math.isnan(value) for value in stats.mean_std([]))
