"""A comparison of two rows as plain text for a terminal, at most 120 columns wide, and as CSV in long form."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from bcd.errors import counted
from bcd.printing import number_text, signed
from bcd.report.compared import Compared, Moved, RowComparison
from bcd.report.render.text import NOTHING, WIDTH, title, wrapped

WIDEST = 120  # of the classes: as many metrics stand beside one another as fit; CSV and JSON have all
SHOWN = 30  # classes; of more, the half that gained most and the half that gained least
LONGEST = 14  # letters of a class's name
COLUMNS = (
    "suite", "table", "a", "b", "kind", "name", "metric", "a_mean", "a_std", "b_mean", "b_std",
    "difference", "low", "high", "p", "seeds_up", "seeds_down",
)  # fmt: skip


def render(found: RowComparison, columns: int = WIDTH) -> str:
    """Metrics, sizes, classes and images, then what a reader must know; sentences are wrapped to `columns`."""
    a, b = found.a.name, found.b.name
    seeds = f"{len(found.repetitions)} paired seeds" if len(found.repetitions) > 1 else "one paired seed"
    lines = [
        f"{found.suite}: {found.table}: {b} − {a}",
        *wrapped(
            f"{found.a.address} and {found.b.address}, {seeds} ({', '.join(found.repetitions)}), "
            f"{counted(found.images, 'image')} of {found.dataset}'s split '{found.split}'",
            columns,
        ),
        "",
        *_metrics("metric", a, b, found.metrics),
    ]
    if found.sizes:
        lines += ["", *_metrics("by size of the object", a, b, found.sizes)]
    if found.classes:
        lines += ["", *_classes(a, found.classes, columns)]
    for what, images in (("gained", found.up), ("lost", found.down)):
        lines += ["", *_images(f"images that {what} most in {title(found.moved_by)}", a, b, images, found)]
    lines.append("")
    for sentence in found.caveats:
        lines += wrapped(sentence, columns)
    return "\n".join(lines) + "\n"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns, the first to the left and the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    sides = ["<", *[">"] * (len(widths) - 1)]
    padded = (map("{:{}{}}".format, line, sides, widths) for line in lines)
    return ["  ".join(cells).rstrip() for cells in padded]


def _metrics(head: str, a: str, b: str, found: Iterable[Compared]) -> list[str]:
    lines = [(head, a, b, "difference", "95 % interval", "p")]
    for one in found:
        name = title(one.metric) + (" (pieces, lower is better)" if one.metric == "frag" else "")
        values = number_text(one.a, one.a_std), number_text(one.b, one.b_std)
        lines.append((name, *values, signed(one.mean), _interval(one), _p(one.p)))
    return _aligned(lines)


def _interval(one: Compared) -> str:
    return NOTHING if one.low is None or one.high is None else f"[{signed(one.low)}, {signed(one.high)}]"


def _p(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _classes(a: str, classes: Sequence[Compared], columns: int) -> list[str]:
    """Per class and metric the first row's value and the difference; the class that gained most first."""
    metrics = list(dict.fromkeys(one.metric for one in classes))
    by_class = {name: {one.metric: one for one in some} for name, some in _by_part(classes)}
    order = sorted(by_class, key=lambda name: -_known(by_class[name][metrics[0]].mean))
    shown = len(metrics)
    while max(map(len, lines := _class_lines(by_class, order, metrics[:shown]))) > WIDEST and shown > 1:
        shown -= 1
    more = f", and those of {', '.join(map(title, metrics[shown:]))} are in --csv" if metrics[shown:] else ""
    said = [_counted(metric, [by_class[name][metric] for name in order]) for metric in metrics]
    return [*lines, *wrapped(f"Values are those of {a}{more}. {' '.join(said)}", columns)]


def _class_lines(
    by_class: Mapping[str, Mapping[str, Compared]], order: Sequence[str], metrics: Sequence[str]
) -> list[str]:
    heads = ["class", *(head for metric in metrics for head in (title(metric), f"Δ {title(metric)}", "95 % interval"))]
    lines = [heads, *([_short(name), *_of_class(by_class[name], metrics)] for name in order)]
    if (left := len(order) - SHOWN) > 0:
        lines[1 + SHOWN // 2 : -SHOWN // 2] = [[f"... {left} more", *[""] * (len(heads) - 1)]]
    return _aligned(lines)


def _by_part(classes: Sequence[Compared]) -> Iterable[tuple[str, Iterable[Compared]]]:
    return groupby(sorted(classes, key=lambda one: one.part), key=lambda one: one.part)


def _known(mean: float | None) -> float:
    """What is undefined comes last."""
    return float("-inf") if mean is None else mean


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."


def _of_class(of: Mapping[str, Compared], metrics: Sequence[str]) -> list[str]:
    cells = []
    for metric in metrics:
        one = of[metric]
        cells += [number_text(one.a), signed(one.mean), _interval(one)]
    return cells


def _counted(metric: str, classes: Sequence[Compared]) -> str:
    """`mIoU rises in 7 of 11 classes and falls in 4.`"""
    defined = [one.mean for one in classes if one.mean is not None]
    rises, falls = sum(mean > 0 for mean in defined), sum(mean < 0 for mean in defined)
    return f"{title(metric)} rises in {rises} of {len(defined)} classes and falls in {falls}."


def _images(head: str, a: str, b: str, images: Sequence[Moved], found: RowComparison) -> list[str]:
    if not images:
        return [f"{head}: none"]
    seeds = len(found.repetitions)
    lines = [(head, a, b, "difference", "seeds up", "down")]
    for one in images:
        counts = f"{one.seeds_up} of {seeds}", f"{one.seeds_down} of {seeds}"
        lines.append((f"  {one.image}", number_text(one.a), number_text(one.b), signed(one.difference), *counts))
    return _aligned(lines)


def render_csv(found: RowComparison) -> str:
    """One line per metric, size, class and image, with full precision; a field that does not apply is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    about = {"suite": found.suite, "table": found.table, "a": found.a.address, "b": found.b.address}
    for kind, some in (("metric", found.metrics), ("size", found.sizes), ("class", found.classes)):
        for one in some:
            writer.writerow(about | {
                "kind": kind, "name": one.part, "metric": one.metric, "a_mean": one.a, "a_std": one.a_std,
                "b_mean": one.b, "b_std": one.b_std, "difference": one.mean, "low": one.low, "high": one.high,
                "p": one.p,
            })  # fmt: skip
    for image in (*found.up, *found.down):
        writer.writerow(about | {
            "kind": "image", "name": image.image, "metric": found.moved_by, "a_mean": image.a, "b_mean": image.b,
            "difference": image.difference, "seeds_up": image.seeds_up, "seeds_down": image.seeds_down,
        })  # fmt: skip
    return stream.getvalue()
