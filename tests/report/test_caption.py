"""What captions and notes say. What they say of partial tables is in test_partial.py."""

from pathlib import Path

from support.suite_results import finish_run, load
from support.tables import STUDENT, cell, content, edit, row, student_file, with_cell

from bcd.report.caption import notes
from bcd.runs.expand import suite_runs
from bcd.runs.jsonfile import read_as
from bcd.runs.record import RunResult


def test_the_caption_says_what_a_reader_must_know(project):
    text = content().caption
    for fact in (
        "6 images",
        "split 'test'",
        "generated",
        "2 seeds",
        "no pretrained weights",
        "MACs at 40 x 32",
        "Holm",
    ):
        assert fact in text
    for file in Path("results/smoke").rglob("s*.json"):
        edit(file, lambda result: result["data"].update(origin="mirror", official=False, note="a repack"))
    assert "not the official files: a repack" in content().caption


def test_the_caption_warns_of_what_the_check_found(project):
    assert "Beware" not in content().caption
    said = ["the class 'sky' has no pixel in the split 'test'", "every pixel of the split 'train' is ignored"]
    for file in Path("results/smoke").rglob("s*.json"):
        edit(file, lambda result: result["data"].update(warnings=said, official=False, note="changed by hand"))
    text = content().caption
    assert f"Beware of the data of scenes-smoke: {'; '.join(said)}." in text
    assert "(generated data; not the official files: changed by hand)" in text


def test_the_caption_names_the_baseline_and_says_what_one_seed_cannot(project):
    assert "difference to 'bcd'" in content(baseline="bcd").caption
    text = content(seeds=1).caption
    assert "over test images only" in text and "One seed" in text


def test_weights_are_named(project):
    for repetition in range(2):
        edit(student_file("none", repetition), lambda result: result.update(pretrained="timm resnet18"))
    assert (
        "Student smoke-student: 6.13 k parameters, 843 k MACs at 40 x 32, weights timm resnet18." in content().caption
    )


def test_of_a_hash_the_caption_has_what_tells_files_apart(project):
    whole = "index:lite 0.1.0 sha256:" + "0123456789abcdef" * 4 + " Apache-2.0"
    for repetition in range(2):
        edit(student_file("none", repetition), lambda result: result.update(pretrained=whole))
    assert "weights index:lite 0.1.0 sha256:0123456789ab Apache-2.0." in content().caption


def compared(measured, method, metric="miou", **changes):
    """The table with another comparison of a method in its first pair."""
    one = cell(measured, method, metric)
    return with_cell(
        measured, method, metric, one.model_copy(update={"difference": one.difference.model_copy(update=changes)})
    )


def test_a_note_names_what_three_points_could_not_be_seen_in(project):
    measured = content()
    for method in ("kd", "cwd", "bcd"):
        for metric in measured.main_metrics:
            measured = compared(measured, method, metric, significant=False, detectable=2.9)
    assert not any("may go unseen" in note for note in notes(measured))
    measured = compared(measured, "kd", detectable=4.26)
    measured = compared(measured, "cwd", "biou", detectable=None)
    measured = compared(measured, "kd", "conn", detectable=359.2)
    measured = compared(measured, "bcd", significant=True, detectable=None)
    measured = compared(measured, "brd", p=None, significant=False, detectable=None)
    (note,) = (note for note in notes(measured) if "may go unseen" in note)
    assert note.startswith("No mark does not mean no difference: one of 3 points may go unseen")
    assert note.endswith("with a probability of 80 %): smoke-student from smoke-teacher on scenes-smoke: "
                         "mIoU (kd 4.3), bIoU (cwd none), Conn (kd none).")  # fmt: skip


def test_a_note_says_how_many_seeds_a_mark_would_take(project):
    """Of the first main metric only, and of no difference that is marked, undefined, 0 or of one seed."""
    measured = content()
    for method, changes in {
        "kd": {"mean": 0.8, "values": [0.0, 1.6], "seeds_needed": 28},
        "cwd": {"mean": -0.04, "values": [-1.0, 0.92], "seeds_needed": None},
        "brd": {"p": None, "mean": None, "values": [None, None]},
        "pbd": {"values": [0.7], "mean": 0.7},
        "bckd": {"values": [0.0, 0.0], "mean": 0.0},
        "bcd": {"significant": True},
    }.items():
        measured = compared(measured, method, **({"significant": False} | changes))
    (note,) = (note for note in notes(measured) if note.startswith("Seeds that would mark"))
    assert "a difference to 'none' in mIoU with a probability of 80 %" in note
    assert note.endswith("smoke-student from smoke-teacher on scenes-smoke: kd (+0.80 ± 1.13 over 2 seeds: about 28), "
                         "cwd (-0.04 ± 1.36 over 2 seeds: over 1000).")  # fmt: skip


def test_frag_has_no_points(project):
    measured = compared(content(main_metrics=["frag"]), "kd", "frag", significant=False, detectable=99.0)
    assert not any("may go unseen" in note for note in notes(measured))


def test_seeds_that_disagree_are_said_to_hide_differences(project):
    """Really measured: the second seed of `bcd` is evaluated on far worse predictions than the first."""
    teacher = read_as(RunResult, Path("results/smoke/teachers/semantic/scenes-smoke/smoke-teacher/none/s0.json"))
    run = suite_runs(*load())[f"{STUDENT}/bcd/s1"]
    finish_run(Path(), "smoke", run, teacher, noise=0.9)
    measured = content()
    found = cell(measured, "bcd").difference
    assert not found.significant and found.detectable > 100
    hidden, needed = measured.notes
    assert "mIoU (bcd none)" in hidden
    values = found.values
    assert f"bcd ({found.mean:+.2f} ± {abs(values[0] - values[1]) / 2**0.5:.2f} over 2 seeds: over 1000)." in needed


def test_a_note_names_the_losses_that_stood_still(project):
    before = content().to_json()
    assert "standing" not in before
    stood = {"kd": {"value": 1.0, "since": 97}, "aux": {"value": 0.0, "since": 1}}
    edit(student_file("kd", 1), lambda result: result.update(standing=stood))
    teacher = Path("results/smoke/teachers/semantic/scenes-smoke/smoke-teacher/none/s0.json")
    edit(teacher, lambda result: result.update(standing={"task": {"value": 0.25, "since": 3}}))
    (note,) = content().notes
    assert note.startswith("Losses that stood still for half of the training or more, so nothing was learned")
    assert "teacher (s0: task at 0.25 from step 3), kd (s1: aux at 0 from step 1 and kd at 1 from step 97)." in note
    for run, names in zip(row(content(), "kd").runs, ([], ["aux", "kd"]), strict=True):
        assert sorted(run.standing) == names


def test_a_whole_table_of_current_runs_has_no_notes(project):
    assert content().notes == []
