"""What a reader must know of a table before believing it, in sentences: its caption and its notes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from bcd.errors import counted
from bcd.printing import signed
from bcd.report.content import Comparison, ModelFacts, PairBlock, TableContent, Trace
from bcd.report.render.text import heading, partial_text, scaled, title
from bcd.report.stats import MOST_SEEDS, POWER, mean_std
from bcd.runs.record import ExportFacts

POINTS = 3.0  # a difference that a reader of such tables would want to know of
SHA256 = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")
NOT_IN_PERCENT = frozenset({"frag"})

SeedsOfMethods = Iterable[tuple[str, list[str]]]  # method -> the repetitions that something is said of


def with_words(content: TableContent, suite: str, table: str) -> TableContent:
    """`content` with its caption and notes; `suite` and `table` are the descriptions of the two."""
    return content.model_copy(update={"caption": caption(content, suite, table), "notes": notes(content)})


def caption(content: TableContent, suite: str, table: str) -> str:
    """The descriptions of suite and table, then data, models, seeds, tests and units."""
    parts = [
        suite.strip(),
        table.strip(),
        *_data(content),
        *_models(content),
        *_exports(content),
        _seeds(content),
        *_tests(content),
    ]
    if content.partial:
        words = partial_text(content.partial)
        parts.insert(0, f"{words}. Means, deviations, intervals and significance may change with them.")
    if "frag" in content.metrics:
        parts.append("Values are percentages, but Frag counts pieces per object (lower is better).")
    else:
        parts.append("Values are percentages.")
    if content.sources:
        parts.append(
            "Published numbers are those of others, from source [n]; code, teachers and schedules differ, so nothing "
            "is compared with them."
        )
    return " ".join(parts)


def notes(content: TableContent) -> list[str]:
    """What is doubtful about the table: runs that it lacks, or that learned nothing from a loss, or are of other code;
    and differences that it is too small to see, and what these would take.
    """
    return [
        *_missing(content), *_fewer_seeds(content), *_power(content), *_seeds_needed(content), *_standing(content),
        *_stale(content),
    ]  # fmt: skip


# --- the caption's sentences ---------------------------------------------------------------------------------------


def _data(content: TableContent) -> list[str]:
    """One sentence for each dataset of which a student is there, and one with what is doubtful about it."""
    sentences = []
    for pair in content.pairs:
        if pair.data is None:
            continue
        sentence = f"Evaluated on the {counted(pair.images or 0, 'image')} of {pair.dataset}'s split '{pair.split}'"
        origin = ["generated data"] if pair.data.origin == "generated" else []
        origin += [] if pair.data.official else [f"not the official files: {pair.data.note or 'unknown bytes'}"]
        sentences.append(f"{sentence} ({'; '.join(origin)})." if origin else f"{sentence}.")
        if pair.data.warnings:
            sentences.append(f"Beware of the data of {pair.dataset}: {'; '.join(pair.data.warnings)}.")
    return list(dict.fromkeys(sentences))


def _models(content: TableContent) -> list[str]:
    """One sentence for each model of which a run is there."""
    models = [one for pair in content.pairs for one in (("Teacher", pair.teacher), ("Student", pair.student))]
    return list(dict.fromkeys(sentence for role, model in models if (sentence := _model(role, model))))


def _model(role: str, model: ModelFacts) -> str | None:
    if model.macs_input is None or model.macs is None or model.parameters is None:
        return None
    height, width = model.macs_input
    # The whole hash is in the record: a caption is read, and twelve digits tell files apart.
    named = SHA256.sub(r"\1", model.pretrained or "none")
    weights = "no pretrained weights" if named == "none" else f"weights {named}"
    return (
        f"{role} {model.name}: {scaled(model.parameters)} parameters, {scaled(model.macs)} MACs at "
        f"{height} x {width}, {weights}."
    )


def _exports(content: TableContent) -> list[str]:
    """One sentence for each form in which students are shown beside PyTorch: no number stands without its toolchain."""
    forms = [f"{pair.export}: {_export(pair.exported)}." for pair in content.pairs if pair.export and pair.exported]
    cost = (
        "Time: the processor's for one image, as a ratio to PyTorch eager, one thread each, in turns in one process. "
        "It is the median over seeds, and differs a little when it is measured again."
    )
    return [*dict.fromkeys(forms), *([cost] if forms else [])]


def _export(facts: ExportFacts) -> str:
    tools = ", ".join(f"{name} {version}" for name, version in facts.toolchain.items() if name not in ("python", "bcd"))
    said = [tools, *([f"opset {facts.opset}"] if facts.opset else [])]
    if facts.calibration:
        said.append(f"calibrated on {facts.calibration} training images, {facts.scheme}")
    said.append(f"on a processor with {', '.join(facts.cpu_flags) or 'no instructions for int8 that we know of'}")
    return "; ".join(said)


def _seeds(content: TableContent) -> str:
    if content.seeds == 1:
        return "One seed per method, so no deviation over seeds is known; the teacher is one run, too."
    return (
        f"Mean ± standard deviation over {content.seeds} seeds, paired: with one seed, all methods of a pair start "
        "from the same weights and see the same batches. The teacher is one run."
    )


def _tests(content: TableContent) -> list[str]:
    if not content.comparisons:
        return []
    interval = f"Δ: difference to '{content.baseline}' of the same pair, with its 95 % interval"
    if content.seeds == 1:
        interval += " over test images only (bootstrap and t interval, the wider): other seeds may differ by more."
    else:
        interval += " over seeds and test images (the wider of a paired bootstrap and a t interval)."
    if content.exported:
        interval += " Δ to PyTorch: to the same runs as PyTorch evaluates them, likewise."
    family = f"{counted(content.comparisons, 'comparison')} of this table"
    if content.exported:
        family = (
            f"{counted(content.comparisons, 'comparison')} with '{content.baseline}' of each form, and over the "
            f"{content.comparisons_to_pytorch} with PyTorch of each"
        )
    return [
        interval,
        f"Bold: significantly better than '{content.baseline}'; †: significantly worse (Holm's correction over the "
        f"{family}, 5 % level).",
    ]


# --- the notes -----------------------------------------------------------------------------------------------------


def _missing(content: TableContent) -> list[str]:
    """One note for each reason why runs of a partial table are left out."""
    if content.partial is None:
        return []
    return [f"Left out, {why}: {_by_method(keys)}." for why, keys in content.partial.missing.items()]


def _by_method(keys: list[str]) -> str:
    """`task/dataset/pair: kd (s0, s1), cwd (s2); ...` for run keys."""
    seeds: dict[str, dict[str, list[str]]] = {}
    for key in keys:
        pair, method, seed = key.rsplit("/", 2)
        seeds.setdefault(pair, {}).setdefault(method, []).append(seed)
    return "; ".join(f"{pair}: {_listed(methods)}" for pair, methods in seeds.items())


def _fewer_seeds(content: TableContent) -> list[str]:
    """The differences of a partial table that are not over all of its seeds."""
    metric = content.main_metrics[0]

    def fewer(pair: PairBlock) -> Iterator[tuple[str, list[str]]]:
        baseline = [run.repetition for run in pair.row(content.baseline).runs]
        for row in pair.rows:
            shared = [run.repetition for run in row.runs if run.repetition in baseline]
            if row.cells[metric].difference and len(shared) < content.seeds:
                yield row.method, shared

    says = "Differences over fewer seeds, those that row and baseline have (with one seed, over test images only)"
    return _note(says, content, fewer)


def _power(content: TableContent) -> list[str]:
    """The comparisons without a mark in which a difference of some points may well go without one."""

    def unseen(pair: PairBlock) -> Iterator[tuple[str, list[str]]]:
        for metric in content.main_metrics:
            cells = [(row.method, row.cells[metric].difference) for row in pair.rows]
            said = [f"{method} {limit}" for method, found in cells if found and (limit := _beyond(found))]
            if said and metric not in NOT_IN_PERCENT:
                yield title(metric), said

    says = (
        f"No mark does not mean no difference: one of {POINTS:g} points may go unseen with these seeds and images "
        f"(beside a method, the difference that would be marked with a probability of {100 * POWER:g} %)"
    )
    return _note(says, content, unseen)


def _beyond(found: Comparison) -> str:
    """The difference that a comparison without a mark could have shown, if it is more than `POINTS`; else ""."""
    if found.significant or found.p is None:
        return ""
    if found.detectable is None or found.detectable > 100:  # metrics end there
        return "none"
    return f"{found.detectable:.1f}" if round(found.detectable, 1) > POINTS else ""


def _seeds_needed(content: TableContent) -> list[str]:
    """How many seeds the differences without a mark would need for one, in the first of the main metrics."""
    metric = content.main_metrics[0]

    def needing(pair: PairBlock) -> Iterator[tuple[str, list[str]]]:
        for row in pair.rows:
            if said := _needing(row.cells[metric].difference):
                yield row.method, [said]

    says = (
        f"Seeds that would mark a difference to '{content.baseline}' in {title(metric)} with a probability of "
        f"{100 * POWER:g} %, if the true one is as it was found, and so is its spread over seeds and images"
    )
    return _note(says, content, needing)


def _needing(found: Comparison | None) -> str:
    """`+0.80 ± 1.10 over 3 seeds: about 28`; nothing for one seed, or a difference that is marked, undefined or 0."""
    values = [value for value in found.values if value is not None] if found else []
    if found is None or found.significant or found.p is None or not found.mean or len(values) < 2:
        return ""
    needed = f"over {MOST_SEEDS}" if found.seeds_needed is None else f"about {found.seeds_needed}"
    return f"{signed(found.mean)} ± {mean_std(values)[1]:.2f} over {counted(len(values), 'seed')}: {needed}"


def _standing(content: TableContent) -> list[str]:
    """The losses that did not change any more in half of a training."""

    def standing(pair: PairBlock) -> Iterator[tuple[str, list[str]]]:
        for row in pair.rows:
            if seeds := [_stood(run) for run in row.runs if run.standing]:
                yield row.method, seeds

    return _note(
        "Losses that stood still for half of the training or more, so nothing was learned from them", content, standing
    )


def _stood(run: Trace) -> str:
    """`s0: bbox_regression at 1 from step 97`."""
    said = [f"{name} at {found.value:.4g} from step {found.since}" for name, found in run.standing.items()]
    return f"{run.repetition}: {' and '.join(said)}"


def _stale(content: TableContent) -> list[str]:
    def stale(pair: PairBlock) -> Iterator[tuple[str, list[str]]]:
        for row in pair.rows:
            if seeds := [run.repetition for run in row.runs if run.stale]:
                yield row.method, seeds

    says = "Code-stale: the code has changed since these runs were made (`bcd plan` says how to repeat them)"
    return _note(says, content, stale)


def _note(says: str, content: TableContent, seeds_of: Callable[[PairBlock], SeedsOfMethods]) -> list[str]:
    """`says: pair: method (s0, s1); ...` for the seeds of each pair's methods; no note where no pair has any."""
    found = [(heading(pair), dict(seeds_of(pair))) for pair in content.pairs]
    places = [f"{pair}: {_listed(methods)}" for pair, methods in found if methods]
    return [f"{says}: {'; '.join(places)}."] if places else []


def _listed(methods: dict[str, list[str]]) -> str:
    """`kd (s0, s1), cwd (s2)`."""
    return ", ".join(f"{method} ({', '.join(seeds)})" for method, seeds in methods.items())
