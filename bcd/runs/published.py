"""What others measured of a model that is loaded and not trained, beside what is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bcd.config.schema.models import PublishedScore
from bcd.errors import nearest
from bcd.runs.run import Run


def against_published(run: Run, published: Sequence[PublishedScore], measured: Mapping[str, float]) -> list[str]:
    """A sentence for each number that others published of the run's weights, on the data that it is evaluated on.

    measured: metric -> value, 0..1. The numbers of a model that is trained here are of other weights: none is shown.
    """
    scores = [one for one in published if (one.dataset, one.split) == (run.dataset, run.evaluation.split)]
    if run.training.recipe.steps or run.teacher is not None:
        return []
    return [_sentence(one, measured) for one in scores]


def _sentence(score: PublishedScore, measured: Mapping[str, float]) -> str:
    beside = f"published {score.metric} {score.value:.2f} ({score.source})"
    if score.metric not in measured:
        return f"{beside}: no such metric was measured{nearest(score.metric, measured)}"
    value = 100 * measured[score.metric]
    apart = abs(value - score.value)
    found = f"{beside}, measured {value:.2f}: they differ by {apart:.2f}"
    if round(apart, 6) <= score.tolerance:
        return f"{found}, within the tolerance of {score.tolerance:g}"
    return (
        f"{found}, MORE than the tolerance of {score.tolerance:g}; this is not the published model as it was measured: "
        "compare the images (mean, std, size, all of the split), the classes and the file"
    )
