"""Our docstrings as mkdocstrings reads them: Google's sections, to which ours add two shorthands.

- Several arguments of one description, `student, teacher: features (N, C, H, W)`.
- The fields of a class in two columns, name and description.
"""

import re
from typing import Any

import griffe

ARGUMENTS = re.compile(r"^( +)((?:\w+, )+\w+):( .*(?:\n\1 +.*)*)", re.MULTILINE)
FIELD = re.compile(r"^(?! )(\w+(?:, \w+)*) {2,}(\S.*(?:\n {2,}\S.*)*)", re.MULTILINE)
PAGE = re.compile(r"(?<![`/\w])docs/([\w/-]+)\.md(#[\w-]+)?")
UP = "../../"  # from reference/api/ of the site to its top


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_google(obj.docstring.value, columns=obj.is_class)


def as_google(text: str, *, columns: bool) -> str:
    """A docstring in Google's style; `columns` where two columns are the fields of a class."""
    text = ARGUMENTS.sub(lambda found: "\n".join(f"{found[1]}{name}:{found[3]}" for name in found[2].split(", ")), text)
    text = text.replace("\nExample:\n", "\nExamples:\n")
    text = PAGE.sub(rf"[\g<0>]({UP}\1.md\2)", text)
    return _attributes(text) if columns else text


def _attributes(text: str) -> str:
    """Blocks of fields in two columns become sections."""
    blocks = text.split("\n\n")
    return "\n\n".join(_section(block) if FIELD.match(block) else block for block in blocks)


def _section(block: str) -> str:
    lines = []
    for names, description in FIELD.findall(block):
        joined = re.sub(r"\n *", " ", description)
        lines += [f"    {name}: {joined}" for name in names.split(", ")]
    return "\n".join(["Attributes:", *lines])
