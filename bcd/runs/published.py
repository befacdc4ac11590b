"""What others measured of a model that is loaded and not trained, beside what is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bcd.config.schema.models import PublishedScore
from bcd.errors import nearest
from bcd.printing import number_text
from bcd.runs.run import Run


@dataclass(frozen=True)
class Beside:
    """A published number beside the measured one, as a sentence; `beyond`: they differ by more than its tolerance."""

    sentence: str
    beyond: bool


def against_published(run: Run, published: Sequence[PublishedScore], measured: Mapping[str, float]) -> list[Beside]:
    """Each number that others published of the run's weights, on the data that it is evaluated on.

    measured: metric -> value as evaluation gives it, in percent like those of params. The numbers of a model that is
    trained here are of other weights: none is shown. Where all are of other data, one sentence says of which.
    """
    if run.training.recipe.steps or run.teacher is not None:
        return []
    here = (run.dataset, run.evaluation.split)
    scores = [one for one in published if (one.dataset, one.split) == here]
    if published and not scores:
        elsewhere = ", ".join(dict.fromkeys(_data(one.dataset, one.split) for one in published))
        said = f"published numbers of {run.model} are of {elsewhere}, and none of {_data(*here)}"
        return [Beside(said, beyond=False)]
    return [_beside(one, measured) for one in scores]


def _data(dataset: str, split: str) -> str:
    return f"{dataset}'s split '{split}'"


def _beside(score: PublishedScore, measured: Mapping[str, float]) -> Beside:
    said = f"published {score.metric} {number_text(score.value)} ({score.source})"
    if score.metric not in measured:
        return Beside(f"{said}: no such metric was measured{nearest(score.metric, measured)}", beyond=False)
    value = measured[score.metric]
    apart = round(abs(value - score.value), 6)
    within = apart <= score.tolerance  # NaN is not
    verdict = "within" if within else "MORE than"
    return Beside(
        f"{said}, measured {number_text(value)}: they differ by {number_text(apart)}, {verdict} the tolerance of "
        f"{score.tolerance:g}",
        beyond=not within,
    )
