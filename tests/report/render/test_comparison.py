"""How a comparison is printed: in columns that fit, whatever stands in them."""

import csv
from functools import partial

import pytest
from support.suite_results import load

from bcd.report.compare import compare_rows
from bcd.report.compared import Compared
from bcd.report.render import comparison

WIDEST = 120


def compared(table="all-labels", **options):
    return partial(compare_rows, table=table)(*load(), "none", "bcd", **options)


@pytest.mark.parametrize("table", ["all-labels", "detection", "instance"])
def test_lines_fit_and_end_in_no_blanks(project, table):
    lines = comparison.render(compared(table)).splitlines()
    assert max(map(len, lines)) <= WIDEST and all(line == line.rstrip() for line in lines)


def test_what_is_printed_is_what_was_found(project):
    found = compared()
    shown = comparison.render(found)
    assert shown.startswith("smoke: all-labels: bcd − none\n")
    miou = found.metrics[0]
    (line,) = (line for line in shown.splitlines() if line.startswith("mIoU "))
    assert line.split() == [
        "mIoU", f"{miou.a:.2f}", "±", f"{miou.a_std:.2f}", f"{miou.b:.2f}", "±", f"{miou.b_std:.2f}",
        f"{miou.mean:+.2f}", f"[{miou.low:+.2f},", f"{miou.high:+.2f}]", "<", "0.001",
    ]  # fmt: skip
    words = " ".join(shown.split())
    assert all(" ".join(sentence.split()) in words for sentence in found.caveats)
    assert "mIoU rises in 8 of 8 classes and falls in 0." in words
    for image in found.up:
        (line,) = (line for line in shown.splitlines() if line.split()[:1] == [image.image])
        assert line.endswith("2 of 2  0 of 2") and f"{image.difference:+.2f}" in line
    assert "images that lost most in mIoU: none" in shown


def classes_in(shown):
    """Lines of the table of classes, by class."""
    lines = shown.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("class "))
    return [line.split()[0] for line in lines[start + 1 : lines.index("", start)]]


def test_the_class_that_gained_most_comes_first(project):
    found = compared(metrics=["biou"])
    gains = {one.part: one.mean for one in found.classes}
    assert classes_in(comparison.render(found))[: len(gains)] == sorted(gains, key=lambda name: -gains[name])


def many(metrics, classes):
    """Differences of so many classes, the last of them undefined, of the widest numbers."""
    return [
        Compared(
            metric=metric, part=f"a class with number {k:03d}", a=100.0, a_std=None, b=0.0, b_std=None,
            values=[], mean=None if k == classes - 1 else -float(k), low=-100.0, high=100.0, p=0.5,
        )
        for metric in metrics
        for k in range(classes)
    ]  # fmt: skip


def test_of_many_classes_the_first_and_the_last_are_shown(project):
    found = compared().model_copy(update={"classes": many(["miou", "biou", "conn", "frag"], 150)})
    shown = comparison.render(found)
    lines = shown.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("... 120 more"))
    assert max(map(len, lines)) <= WIDEST
    assert "and those of Conn, Frag are in --csv" in " ".join(shown.split())
    table = lines[at - 16 : at + 16]
    assert table[0].startswith("class ") and all(line.startswith("a class wit...") for line in table[1:16])
    assert table[-1].count("n/a") == 2, "what is undefined comes last"


def test_csv_has_everything_with_full_precision(project):
    found = compared("instance")
    lines = list(csv.DictReader(comparison.render_csv(found).splitlines()))
    kinds = [line["kind"] for line in lines]
    assert kinds.count("metric") == 3 and kinds.count("size") == 9
    assert kinds.count("class") == len(found.classes) and kinds.count("image") == len(found.up) + len(found.down)
    assert float(lines[0]["difference"]) == found.metrics[0].mean and float(lines[0]["p"]) == found.metrics[0].p
    undefined = next(line for line in lines if line["metric"] == "ap_m")
    assert undefined["difference"] == undefined["p"] == ""
    image = next(line for line in lines if line["kind"] == "image")
    assert (image["name"], float(image["difference"])) == (found.up[0].image, found.up[0].difference)
