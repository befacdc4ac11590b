"""history.jsonl: whole lines in, whole lines out, and one sentence for what is none."""

import resource

import pytest

from bcd.errors import UserError
from bcd.train import history

LINE = {"step": 1, "lr": 0.1, "loss": 2.0}


def test_lines_are_cut_after_the_last_checkpoint_and_half_a_line_with_them(tmp_path):
    history.cut_after(tmp_path, 3)
    for step in (1, 2, 3):
        history.add_line(tmp_path, LINE | {"step": step})
    path = tmp_path / history.FILE
    whole = path.read_text()
    path.write_text(whole + '{"step": 4, "lr')
    assert [line["step"] for line in history.read(tmp_path)] == [1, 2, 3]
    history.cut_after(tmp_path, 3)
    assert path.read_text() == whole
    history.cut_after(tmp_path, 1)
    assert history.read(tmp_path) == [LINE]


@pytest.mark.parametrize("bad", ["", "[]", "3", "{}", "{", '{"step": "1"}', '{"step": null}', "\x00\x00", "é"])
def test_a_damaged_line_is_named_and_the_remedy_works(tmp_path, bad):
    path = tmp_path / history.FILE
    history.add_line(tmp_path, LINE)
    path.write_bytes(path.read_bytes() + bad.encode("latin-1") + b"\n")
    history.add_line(tmp_path, LINE | {"step": 2})
    with pytest.raises(UserError, match=f"{path}: line 2 is damaged; delete the line"):
        history.cut_after(tmp_path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    history.cut_after(tmp_path, 2)
    assert len(history.read(tmp_path)) == 2
    path.write_bytes(b"\xff\n")
    history.cut_after(tmp_path, 0)  # a run that starts anew needs none of it
    assert path.read_bytes() == b""


def test_a_full_disk_is_one_sentence(tmp_path, in_child):
    """Row 14: the disk was full at the line of the history."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
        with pytest.raises(UserError, match=f"disk full while writing {tmp_path / history.FILE}; free space"):
            for _ in range(5):
                history.add_line(tmp_path, LINE)

    assert in_child(limited)[1]() == 0
