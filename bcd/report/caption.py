"""What a reader must know of a table before believing it, in words: data, models, seeds and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bcd.report.headings import heading, partial_text


def caption(content: dict[str, Any], suite: str, table: str) -> str:
    """The caption of `bcd.report.tables.measure`'s content, after the descriptions of suite and table."""
    parts = [suite.strip(), table.strip(), *_data(content), *_models(content), _seeds(content), *_tests(content)]
    if "partial" in content:
        parts.insert(0, f"{partial_text(content)}. Means, deviations, intervals and significance may change with them.")
    if "frag" in content["metrics"]:
        parts.append("Values are percentages, but Frag counts pieces per object (lower is better).")
    else:
        parts.append("Values are percentages.")
    if content["sources"]:
        parts.append(
            "Published numbers are those of others, from source [n]; code, teachers and schedules differ, so nothing "
            "is compared with them."
        )
    return " ".join(parts)


def notes(content: dict[str, Any]) -> list[str]:
    """What is doubtful about the table: runs that it lacks, and runs whose code has changed since they were made."""
    return [*_missing(content), *_fewer_seeds(content), *_stale(content)]


def _missing(content: dict[str, Any]) -> list[str]:
    """One note for each reason why runs of a partial table are left out."""
    if "partial" not in content:
        return []
    return [f"Left out, {why}: {_by_method(keys)}." for why, keys in content["partial"]["missing"].items()]


def _by_method(keys: list[str]) -> str:
    """`task/dataset/pair: kd (s0, s1), cwd (s2); ...` for run keys."""
    seeds: dict[str, dict[str, list[str]]] = {}
    for key in keys:
        pair, method, seed = key.rsplit("/", 2)
        seeds.setdefault(pair, {}).setdefault(method, []).append(seed)
    return "; ".join(f"{pair}: {_with_seeds(methods)}" for pair, methods in seeds.items())


def _with_seeds(methods: dict[str, list[str]]) -> str:
    return ", ".join(f"{method} ({', '.join(seeds)})" for method, seeds in methods.items())


def _fewer_seeds(content: dict[str, Any]) -> list[str]:
    """The differences of a partial table that are not over all of its seeds."""
    metric = content["main_metrics"][0]

    def fewer(pair: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
        baseline = next(row for row in pair["rows"] if row["method"] == content["baseline"])
        for row in pair["rows"]:
            shared = [seed for seed in map(_seed, row["runs"]) if seed in map(_seed, baseline["runs"])]
            if row["cells"][metric]["difference"] and len(shared) < content["seeds"]:
                yield row["method"], shared

    says = "Differences over fewer seeds, those that row and baseline have (with one seed, over test images only)"
    return _note(says, content, fewer)


def _stale(content: dict[str, Any]) -> list[str]:
    def stale(pair: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
        for row in pair["rows"]:
            if seeds := [_seed(run) for run in row["runs"] if run["stale"]]:
                yield row["method"], seeds

    says = "Code-stale: the code has changed since these runs were made (`bcd plan` says how to repeat them)"
    return _note(says, content, stale)


def _note(says: str, content: dict[str, Any], seeds_of: Callable[[dict], Iterable[tuple[str, list[str]]]]) -> list[str]:
    """`says: pair: method (s0, s1); ...` for the seeds of each pair's methods; no note where no pair has any."""
    found = [(heading(pair), dict(seeds_of(pair))) for pair in content["pairs"]]
    places = [f"{pair}: {_with_seeds(methods)}" for pair, methods in found if methods]
    return [f"{says}: {'; '.join(places)}."] if places else []


def _seed(run: dict[str, Any]) -> str:
    return run["key"].rpartition("/")[2]


def _data(content: dict[str, Any]) -> list[str]:
    sentences = []
    for pair in content["pairs"]:
        data = pair["data"]
        if data is None:  # no student of the pair is there
            continue
        sentence = f"Evaluated on the {pair['images']} images of {pair['dataset']}'s split '{pair['split']}'"
        if data["origin"] == "generated":
            sentence += " (generated data)"
        elif not data["official"]:
            sentence += f" (not the official files: {data['note'] or 'unknown bytes'})"
        sentences.append(f"{sentence}.")
    return list(dict.fromkeys(sentences))


def _models(content: dict[str, Any]) -> list[str]:
    sentences = []
    for pair in content["pairs"]:
        for role in ("teacher", "student"):
            model = pair[role]
            if model["macs_input"] is None:
                continue
            height, width = model["macs_input"]
            weights = "no pretrained weights" if model["pretrained"] == "none" else f"weights {model['pretrained']}"
            sentences.append(
                f"{role.capitalize()} {model['name']}: {_count(model['parameters'])} parameters, "
                f"{_count(model['macs'])} MACs at {height} x {width}, {weights}."
            )
    return list(dict.fromkeys(sentences))


def _seeds(content: dict[str, Any]) -> str:
    if content["seeds"] == 1:
        return "One seed per method, so no deviation over seeds is known; the teacher is one run, too."
    return (
        f"Mean ± standard deviation over {content['seeds']} seeds, paired: with one seed, all methods of a pair start "
        "from the same weights and see the same batches. The teacher is one run."
    )


def _tests(content: dict[str, Any]) -> list[str]:
    if not content["comparisons"]:
        return []
    interval = f"Δ: difference to '{content['baseline']}' of the same pair, with its 95 % interval"
    if content["seeds"] == 1:
        interval += " over test images only (bootstrap and t interval, the wider): other seeds may differ by more."
    else:
        interval += " over seeds and test images (the wider of a paired bootstrap and a t interval)."
    return [
        interval,
        f"Bold: significantly better than '{content['baseline']}'; †: significantly worse (Holm's correction over the "
        f"{content['comparisons']} comparisons of this table, 5 % level).",
    ]


def _count(value: float) -> str:
    """Three significant digits with a metric prefix: 1234567 -> '1.23 M'."""
    for factor, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{prefix}"
    return str(value)
