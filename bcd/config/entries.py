"""The entries of a params file, each read when it is asked for: one that is wrong concerns only who uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from bcd.errors import UserError

Value = TypeVar("Value")


class Entries(Mapping[str, Value]):
    """Name -> value. Looking one up checks it, and raises UserError that names file, entry and field if it is wrong."""

    def __init__(self, raw: Mapping[str, Any], parse: Callable[[str, Any], Value]):
        """parse: makes the value of a name and of what the file has for it."""
        self._raw, self._parse = raw, parse
        self._values: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        if name not in self._values:
            self._values[name] = self._parse(name, self._raw[name])
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def replaced(self, values: Mapping[str, Value]) -> Entries[Value]:
        """These entries with others in the place of, or beside, those of the same names."""
        mixed = Entries({**self._raw, **values}, self._parse)
        mixed._values = {**self._values, **values}
        return mixed

    def right(self) -> dict[str, Value]:
        """Those that can be used."""
        return self._judged()[0]

    def wrong(self) -> list[str]:
        """What is wrong with the others, a sentence each."""
        return self._judged()[1]

    def _judged(self) -> tuple[dict[str, Value], list[str]]:
        right, wrong = dict[str, Value](), list[str]()
        for name in self:
            try:
                right[name] = self[name]
            except UserError as error:
                wrong.append(str(error))
        return right, wrong
