"""What every dataset lists: where the files of one sample lie."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One image and its label, as paths relative to the dataset's root; `name` is for messages."""

    name: str
    image: str
    label: str
