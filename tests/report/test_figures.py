"""The figure shows what the table says."""

from support.tables import cell, content

from bcd.report import figures


def test_the_figure_has_a_panel_for_each_pair_and_main_metric(project):
    measured, few = content(), content("few-labels")
    measured = measured.model_copy(update={"pairs": [*measured.pairs, *few.pairs]})
    figure = figures._figure(measured)
    blocks = [block.axes for block in figure.subfigs]
    assert [len(axes) for axes in blocks] == [3, 3]
    assert [text.get_text() for text in blocks[1][0].get_yticklabels()] == ["bcd"]
    drawn = [value for line in blocks[1][0].lines for value in line.get_xdata()]
    found = cell(measured, "bcd", pair=1).difference
    assert set(drawn) == {0, found.mean, found.low, found.high, *found.values}
    assert figures.forest(measured) == figures.forest(measured)


def test_another_baseline_makes_another_figure(project):
    assert figures.forest(content(baseline="bcd")) != figures.forest(content())
