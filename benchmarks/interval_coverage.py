"""Coverage of nominal 95 % intervals in simulation: the table of docs/reference/metrics.md.

    python benchmarks/interval_coverage.py [--trials 600]

Per trial, differences d(seed, image) = effect + seed + image + interaction are drawn from Gaussians. Their shares of
the variance of the mean difference are given. An interval counts if it holds the effect. It takes about four minutes on
one core.
"""

import argparse
from collections.abc import Mapping

import numpy as np
from scipy import stats as distributions

from bcd.report import stats

IMAGES = 300
CASES = [  # seeds, what varies, shares of the variance of the mean: seed, image, interaction
    (3, "seeds", (1.0, 0.0, 0.0)),
    (3, "seeds and images, half each", (0.5, 0.5, 0.0)),
    (5, "seeds", (1.0, 0.0, 0.0)),
    (5, "seeds and images, half each", (0.5, 0.5, 0.0)),
    (5, "images", (0.0, 1.0, 0.0)),
    (5, "their interaction", (0.0, 0.0, 1.0)),
    (10, "seeds and images, half each", (0.5, 0.5, 0.0)),
]


def summarise(rows: Mapping[str, np.ndarray], weights: np.ndarray | None = None) -> dict[str, float | np.ndarray]:
    """The metric is the mean over images."""
    values = rows["d"]
    if weights is None:
        return {"d": float(values.mean())}
    return {"d": weights @ values / weights.sum(1)}


def draw(rng: np.random.Generator, seeds: int, shares: tuple[float, float, float]) -> np.ndarray:
    """Differences (seeds, IMAGES) with true mean 0, the variance of their grand mean being 1."""
    by_seed, by_image, both = (np.sqrt(s) for s in shares)
    return (
        by_seed * np.sqrt(seeds) * rng.standard_normal((seeds, 1))
        + by_image * np.sqrt(IMAGES) * rng.standard_normal((1, IMAGES))
        + both * np.sqrt(seeds * IMAGES) * rng.standard_normal((seeds, IMAGES))
    )


def bootstrap(d: np.ndarray, rng: np.random.Generator, replicates: int) -> tuple[float, float]:
    """The percentile bootstrap over seeds and images alone."""
    seeds = rng.multinomial(len(d), np.full(len(d), 1 / len(d)), replicates) / len(d)
    images = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), replicates) / IMAGES
    low, high = np.quantile(((seeds @ d) * images).sum(1), [0.025, 0.975])
    return low, high


def t_over_seeds(d: np.ndarray) -> tuple[float, float]:
    """The paired t interval over seeds alone."""
    means = d.mean(1)
    half = distributions.t.ppf(0.975, len(d) - 1) * means.std(ddof=1) / np.sqrt(len(d))
    return means.mean() - half, means.mean() + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--replicates", type=int, default=1000)
    options = parser.parse_args()
    print("| seeds | variance from | bootstrap alone | t over seeds alone | both (used) |\n|---|---|---|---|---|")
    for seeds, what, shares in CASES:
        rng, hits = np.random.default_rng(0), np.zeros(3)
        for trial in range(options.trials):
            d = draw(rng, seeds, shares)
            zero = [{"d": np.zeros(IMAGES)}] * seeds
            used = stats.compare(
                [{"d": one} for one in d], zero, metrics=["d"], replicates=options.replicates, seed=trial,
                summarise=summarise,
            )["d"]  # fmt: skip
            intervals = [bootstrap(d, rng, options.replicates), t_over_seeds(d), (used.low, used.high)]
            hits += [low <= 0 <= high for low, high in intervals]
        print(f"| {seeds} | {what} | " + " | ".join(f"{100 * h / options.trials:.0f}" for h in hits) + " |", flush=True)


if __name__ == "__main__":
    main()
