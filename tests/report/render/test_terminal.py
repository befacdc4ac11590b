from support.tables import content

from bcd.report.render import terminal


def test_the_baseline_is_named(project):
    assert "difference to bcd" in terminal.render(content(baseline="bcd"))


def test_lines_fit_a_terminal(project):
    for table in ("all-labels", "few-labels", "detection", "instance"):
        assert max(map(len, terminal.render(content(table)).splitlines())) <= 100
    notes = content("detection").notes
    assert max(map(len, notes)) > 100
    shown = " ".join(terminal.render(content("detection")).split())
    assert all(" ".join(note.split()) in shown for note in notes)
