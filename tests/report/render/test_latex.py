import re

from hypothesis import given
from hypothesis import strategies as st
from support.tables import content

from bcd.report.render import latex


def test_the_latex_is_balanced_and_every_line_has_all_its_columns(project):
    lines = latex.render(content()).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("%"))
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))
    for name in ("table*", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0
    columns = None
    for line in lines:
        if match := re.match(r"\\begin\{tabular\}\{(l r*|lr*)\}", line):
            columns = len(match[1])
        elif line.endswith(r"\\") and not line.startswith(r"\multicolumn"):
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1


@given(st.text())
def test_escaped_text_holds_nothing_that_latex_would_act_on(text):
    escaped = latex.escape(text)
    commands = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[{}$&#%_]"
    symbols = r"\$\\(pm|times|Delta|le|ge)\$|\$\^\{\\(dagger|circ)\}\$|\$-\$"
    assert not re.search(r"[\\{}$&#%_~^<>|]", re.sub(f"{commands}|{symbols}", "", escaped))
