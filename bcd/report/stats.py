"""Paired comparison of two methods over seeds and images; the choices are argued in docs/reference/metrics.md."""

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy import special
from scipy import stats as distributions

from bcd import metrics as semantic
from bcd.errors import UserError

LEVEL = 0.95
POWER = 0.8  # the chance to be found that `detectable` asks for; Cohen's convention
MOST_SEEDS = 1000  # that `seeds_needed` looks at
REPLICATES = 2000  # of the bootstrap, where a family has no need of more

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Difference:
    """Paired difference of one metric between two methods, in the metric's unit.

    Attributes:
        mean: over seeds, of metric(a) - metric(b).
        std: over seeds (ddof 1); nan with one seed.
        low, high: 95 % interval of the mean over new seeds and new images.
        p: two-sided p-value of "no difference", for `holm`.
        error, df: standard error and degrees of freedom of the t interval.
        spread: standard deviation of the bootstrap's replicates.
        least_p: the smallest p-value that the bootstrap can give.

    All are nan where the metric is undefined.
    """

    mean: float
    std: float
    low: float
    high: float
    p: float
    error: float
    df: float
    spread: float
    least_p: float


def compare(
    a: Sequence[Mapping[str, np.ndarray]],
    b: Sequence[Mapping[str, np.ndarray]],
    *,
    metrics: Sequence[str] = ("miou",),
    replicates: int = REPLICATES,
    seed: int = 0,
    summarise: Callable[..., Mapping[str, float | np.ndarray]] = semantic.summarise,
) -> dict[str, Difference]:
    """Compare two methods run with the same seeds and evaluated on the same images.

    Interval and p-value guard against two sources of chance: the seed and the choice of test images. Two methods are
    asked, and the more cautious answer counts, which is the wider side of the interval and the larger p.

    - Percentile bootstrap (Owen 2007, "The pigeonhole bootstrap"). Seeds and images are drawn with replacement; a
      replicate has the same images for both methods and all seeds.
      p = 2 * min(#{<= 0} + 1, #{>= 0} + 1) / (replicates + 1), at most 1.
      With few seeds it is anti-conservative. The resampled spread of S seeds is (S - 1) / S of the right variance and
      knows no heavy tail. So at S = 5 it covers far less than 95 % when the seeds dominate.
    - t interval with variance (variance over seeds) / S + (bootstrap variance over images), Satterthwaite degrees
      of freedom. It is what a paired t-test over seeds becomes when the test images are a sample, too.

    With one seed the interval is over images only and says nothing about other seeds.

    Args:
        a, b: one entry per seed, `a[i]` paired with `b[i]`: arrays whose first axis is the image.
        metrics: keys of what `summarise` returns.
        replicates: bootstrap replicates B; the smallest possible p-value is 2 / (B + 1).
        seed: of the bootstrap's generator.
        summarise: `summarise(rows)` gives `{metric: float}`, `summarise(rows, weights)` with float64 (B, I) image
            multiplicities `{metric: (B,)}`.

    Returns:
        A `Difference` for each metric.

    Raises:
        UserError: seeds or images do not pair up, or a metric is unknown.
    """
    images = _paired_images(a, b)
    draw = np.random.default_rng(seed)
    image_weights = draw.multinomial(images, np.full(images, 1 / images), replicates).astype(np.float64)
    seed_weights = draw.multinomial(len(a), np.full(len(a), 1 / len(a)), replicates).T / len(a)

    exact = _differences(a, b, metrics, summarise)
    resampled = _differences(a, b, metrics, lambda rows: summarise(rows, image_weights))
    return {m: _difference(exact[m], resampled[m], seed_weights, images) for m in metrics}


def detectable(found: Difference, level: float) -> float:
    """The true difference that a comparison of the same precision finds with probability `POWER`.

    It is found where its p-value is at most `level`, and its sign is right. As of the two p-values the larger counts,
    so does of two answers:

    - t interval: error * n, with the noncentrality n at which P(T(df, n) > t(1 - level / 2; df)) = POWER. This is the
      power of the t test (Cohen 1988, "Statistical power analysis for the behavioral sciences", chapter 2), with
      Satterthwaite's degrees of freedom.
    - Bootstrap: spread * (z(1 - level / 2) + z(POWER)), as its replicates are about normal (Bloom 1995, "Minimum
      detectable effects").

    Args:
        found: the comparison whose `error`, `df` and `spread` are taken for true.
        level: largest significant p-value, in (0, 1).

    Returns:
        It, in the metric's unit, at least 0. inf if the bootstrap has too few replicates to give such a p-value, nan
        where `found` is undefined.
    """
    if level < found.least_p:
        return math.inf
    t = distributions.t.isf(level / 2, found.df)
    noncentrality = special.nctdtrinc(found.df, 1 - POWER, t) if found.error else 0.0
    normal = distributions.norm.isf(level / 2) + distributions.norm.ppf(POWER)
    return float(np.maximum(found.error * noncentrality, found.spread * normal))


def seeds_needed(found: Difference, level: float, *, seeds: int, images: int) -> int | None:
    """About how many seeds a comparison would need to find its own difference with probability `POWER`.

    The difference and the variances that were found are taken for true. It is the smallest number n of seeds at which
    `detectable` is at most the difference. That is the sample size of the paired t test (Cohen 1988, chapter 2), with
    a part of the variance that more seeds do not lessen:

    - error(n)^2 = s^2 / n + V, where s is the deviation between seeds and V the bootstrap's variance over images. V
      holds the interaction of seeds and images, too, which would fall, so that n is rather too large;
    - Satterthwaite's degrees of freedom of these two, with n - 1 and images - 1;
    - spread(n)^2 = V + (spread^2 - V) (S / n) (1 - 1/n) / (1 - 1/S) for the bootstrap, where S seeds are resampled.

    Args:
        found: the comparison, of so many `seeds` and `images`.
        level: largest significant p-value, in (0, 1).

    Returns:
        It, above `seeds`. None for one seed, whose deviation is unknown, for a difference that is undefined or 0, and
        where `MOST_SEEDS` are too few, such as when the images alone leave too much open.
    """
    if seeds < 2 or not found.mean or math.isnan(found.mean) or math.isnan(found.error):
        return None
    over_images = max(found.error**2 - found.std**2 / seeds, 0.0)
    resampled = max(found.spread**2 - over_images, 0.0) * seeds / (1 - 1 / seeds)

    def power_of(n: int) -> float:
        error, df = standard_error(found.std**2 / n, n - 1, over_images, images - 1)
        spread = math.sqrt(over_images + resampled / n * (1 - 1 / n))
        return -detectable(replace(found, error=error, df=df, spread=spread), level)

    numbers = range(seeds + 1, MOST_SEEDS + 1)
    at = bisect_left(numbers, -abs(found.mean), key=power_of)
    return numbers[at] if at < len(numbers) else None


def enough_replicates(comparisons: int, alpha: float = 0.05) -> int:
    """Bootstrap replicates with which `holm` can reject in a family of so many comparisons: REPLICATES, or more.

    The smallest p-value of B replicates is 2 / (B + 1), and the first comparison is asked for alpha / comparisons.
    """
    return max(REPLICATES, math.ceil(2 * comparisons / alpha))


def holm(pvalues: Mapping[Key, float], alpha: float = 0.05) -> dict[Key, bool]:
    """Which hypotheses Holm's step-down procedure rejects at family-wise error rate `alpha` (Holm 1979).

    Args:
        pvalues: one family, usually all comparisons of a table. nan is never rejected but counts as a test.

    Returns:
        The same keys in the same order; true where rejected.
    """
    rejected = dict.fromkeys(pvalues, False)
    ordered = sorted(pvalues, key=lambda key: math.inf if math.isnan(pvalues[key]) else pvalues[key])
    for rank, key in enumerate(ordered):
        if not pvalues[key] <= alpha / (len(ordered) - rank):
            break
        rejected[key] = True
    return rejected


def mean_std(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof 1); nan for the deviation of one value, for both of none."""
    values = np.fromiter(values, np.float64)
    mean = float(values.mean()) if values.size else math.nan
    return mean, float(values.std(ddof=1)) if values.size > 1 else math.nan


def _paired_images(a: Sequence[Mapping], b: Sequence[Mapping]) -> int:
    if len(a) != len(b) or not a:
        raise UserError(f"cannot pair {len(a)} seeds with {len(b)}; run both methods with the same seeds")
    sizes = sorted({len(values) for rows in (*a, *b) for values in rows.values()})
    if len(sizes) != 1 or sizes[0] == 0:
        raise UserError(f"runs evaluated on different images ({sizes}); evaluate them on the same split")
    return sizes[0]


def _differences(a: Sequence, b: Sequence, metrics: Sequence[str], summary: Callable) -> dict[str, np.ndarray]:
    """metric(a) - metric(b) for each seed: `{metric: (S,) or (S, B)}`."""
    rows = [(summary(one), summary(other)) for one, other in zip(a, b, strict=True)]
    known = rows[0][0].keys() & rows[0][1].keys()
    if unknown := [m for m in metrics if m not in known]:
        raise UserError(f"metric {unknown[0]!r} was not evaluated; choose from {', '.join(sorted(known))}")
    return {m: np.array([one[m] - other[m] for one, other in rows]) for m in metrics}


def _difference(exact: np.ndarray, resampled: np.ndarray, seed_weights: np.ndarray, images: int) -> Difference:
    """From differences (S,), their image replicates (S, B) and the seeds' shares (S, B) in each replicate."""
    mean, std = mean_std(exact)
    # A replicate may miss every image that defines the metric; it says nothing and is left out.
    defined = np.isfinite(resampled).all(0)
    if math.isnan(mean) or not defined.any():
        return Difference(mean, std, *[math.nan] * 7)
    replicates = (resampled * seed_weights).sum(0)[defined]
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tail = min(np.count_nonzero(replicates <= 0), np.count_nonzero(replicates >= 0))
    least_p = 2 / (replicates.size + 1)
    p = min(1.0, (tail + 1) * least_p)

    between_seeds = std**2 / exact.size if exact.size > 1 else 0.0
    between_images = resampled.mean(0)[defined].var()
    error, df = standard_error(between_seeds, exact.size - 1, float(between_images), images - 1)
    half = float(distributions.t.ppf((1 + LEVEL) / 2, df)) * error
    t_p = float(2 * distributions.t.sf(abs(mean) / error, df)) if error else float(mean == 0)
    return Difference(
        mean, std, min(float(low), mean - half), max(float(high), mean + half), max(p, t_p),
        error, df, float(replicates.std()), least_p,
    )  # fmt: skip


def standard_error(var_1: float, df_1: int, var_2: float, df_2: int) -> tuple[float, float]:
    """Of a mean with two sources of variance, and its degrees of freedom (Satterthwaite 1946)."""
    variance = var_1 + var_2
    if variance == 0:
        return 0.0, math.inf
    return math.sqrt(variance), variance**2 / (var_1**2 / max(df_1, 1) + var_2**2 / max(df_2, 1))
