"""Power of a comparison in simulation: the table of docs/reference/metrics.md on detectable differences.

    python benchmarks/power.py [--trials 300]

Noise is drawn as in `interval_coverage.py`, and a true difference is added: the one that `stats.detectable` says is
found with a probability of 80 %, from the variances that the noise is drawn with. A trial counts if its p-value is at
most the level. It takes about seven minutes on one core.
"""

import argparse
import math

import numpy as np
from interval_coverage import CASES, IMAGES, draw, summarise

from bcd.report import stats

LEVELS = (0.05, 0.0025)  # of one comparison, and of the first of twenty after Holm's correction


def known(seeds: int, shares: tuple[float, float, float], replicates: int) -> stats.Difference:
    """What a comparison says on average whose mean has these shares of variance: of seeds, images, interaction."""
    by_seed, by_image, both = shares
    error, df = stats.standard_error(by_seed + both, seeds - 1, by_image + both, IMAGES - 1)
    of_seeds, of_images = 1 - 1 / seeds, 1 - 1 / IMAGES  # what resampling keeps of a variance
    spread = of_seeds * by_seed + of_images * by_image + (of_seeds + of_images + of_seeds * of_images) * both
    nothing = math.nan
    return stats.Difference(
        0.0, nothing, nothing, nothing, nothing, error, df, math.sqrt(spread), least_p=2 / (replicates + 1)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--replicates", type=int, default=2000)
    options = parser.parse_args()
    print("| seeds | variance from | level | detectable, in true standard errors | found, % |\n|---|---|---|---|---|")
    for seeds, what, shares in CASES:
        for level in LEVELS:
            rng, effect = np.random.default_rng(0), stats.detectable(known(seeds, shares, options.replicates), level)
            found = 0
            for trial in range(options.trials):
                d = draw(rng, seeds, shares) + effect
                zero = [{"d": np.zeros(IMAGES)}] * seeds
                one = stats.compare(
                    [{"d": row} for row in d], zero, metrics=["d"], replicates=options.replicates, seed=trial,
                    summarise=summarise,
                )["d"]  # fmt: skip
                found += one.p <= level and one.mean > 0
            print(f"| {seeds} | {what} | {level} | {effect:.1f} | {100 * found / options.trials:.0f} |", flush=True)


if __name__ == "__main__":
    main()
