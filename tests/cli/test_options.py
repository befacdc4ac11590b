"""What long work says of how far it is."""

import time

from bcd.cli.options import progress


def test_what_was_spoken_of_ends_with_its_total(capsys):
    said = progress(interval=0.3)
    time.sleep(0.4)
    for done in (1, 2, 3):
        said("images", done, 3)
    said("unpack", 5, 5)
    lines = [line.split(maxsplit=1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == "images: 1 of 3" and "images: 3 of 3" in lines


def test_short_work_says_nothing(capsys):
    said = progress(interval=1000)
    for done in (1, 2, 3):
        said("images", done, 3)
    assert not capsys.readouterr().err
