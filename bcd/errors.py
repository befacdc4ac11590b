"""The one exception that a user is meant to read, and the words of sentences: foreign text, counts, near spellings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")
LONGEST = 4000  # letters of a sentence; files and other errors may hold more
LISTED = 800  # letters of a list of what is known; of a longer one the NEAREST are named
NEAREST = 3


class UserError(Exception):
    """Something the user can mend: one sentence that names the file or field and the remedy.

    The command line prints the message without a traceback and exits with status 2. Everything else is a
    bug of ours and keeps its traceback. The message may quote files, servers and other errors: it is shown
    `harmless`, in one line.
    """

    def __init__(self, message: str) -> None:
        text = harmless(re.sub(r"\s*\n\s*", " ", message))
        super().__init__(text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}")


def harmless(text: str) -> str:
    """`text` as a terminal may show it: a character that is not printable, but for newline and tab, as its escape.

    What files, archives, servers and arguments hold may move the cursor, rename the window or hide text.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`: a number of things whose plural takes an s or, after s and ch, es."""
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith(('s', 'ch')) else 's'}"


def nearest(word: object, known: Iterable[object]) -> str:
    """`; did you mean 'x'?` for the closest of `known`, else the list of them, or the nearest of a long list."""
    listed = sorted(str(one) for one in known)
    close = difflib.get_close_matches(str(word), listed, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    text = ", ".join(listed)
    if len(text) <= LISTED:
        return f"; known: {text}"
    few = difflib.get_close_matches(str(word), listed, n=NEAREST, cutoff=0.0)
    return f"; the nearest of {len(listed)} are {', '.join(few)}"


def pick(mapping: Mapping[str, Value], name: str, where: str) -> Value:
    """`mapping[name]`, or a `UserError` that says where the name was used and what it may have been meant to be."""
    if name not in mapping:
        raise UserError(f"{where}: '{name}' is not defined{nearest(name, mapping)}")
    return mapping[name]
