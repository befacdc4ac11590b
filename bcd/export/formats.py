"""What the module of a format offers, and how one is found. `EXPORTERS` of this package names them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from bcd.errors import UserError, pick
from bcd.export import EXPORTERS
from bcd.export.graph import Graph

# An input float32 (N, 3, H, W) to the graph's outputs, in their order.
Call = Callable[[np.ndarray], Sequence[np.ndarray]]
# Suffix -> bytes of the files of one export, the one that is named first.
Files = Mapping[str, bytes]


class Exporter(Protocol):
    """A format: an exported `model` is whatever its toolchain works on."""

    SUFFIXES: tuple[str, ...]
    """Of its files; the first one is what a user names."""
    EXTRA: str
    """The extra of pyproject.toml that brings its packages."""
    PACKAGES: tuple[str, ...]
    """What that extra brings, by the names of distributions, which are those of modules too."""

    def default_opset(self, wanted: int | None) -> int | None:
        """The opset of a model, None for a format without; UserError for one that its runtime lacks."""

    def convert(self, graph: Graph, example: np.ndarray, *, dynamic: bool, opset: int | None) -> Any:
        """The graph as a model, for any number of images of the example's size, with `dynamic` of any size."""

    def quantise(self, model: Any, images: Sequence[np.ndarray], *, everything: bool) -> tuple[Any, str, list[str]]:
        """The model in int8, ranges as in `images`; what scheme it has, and the operations left in float.

        everything: quantises the last convolutions and what follows them, too.
        """

    def serialise(self, model: Any, metadata: str) -> Files:
        """The model as the bytes of its files, with `metadata` in them and no path of this machine."""

    def session(self, files: Files, threads: int | None) -> tuple[str | None, Call]:
        """The metadata of such files, None where they have none, and their model in the runtime.

        Raises UserError for what the runtime cannot read.
        """


def of_name(name: str) -> Exporter:
    """The module of a format, whether or not its extra is installed; raises UserError for an unknown one."""
    return cast("Exporter", import_module(pick(EXPORTERS, name, "--format")))


def exporter(name: str) -> Exporter:
    """The module of a format; raises UserError for an unknown one and where its extra is not installed."""
    found = of_name(name)
    lacking = next((package for package in found.PACKAGES if importlib.util.find_spec(package) is None), None)
    if lacking:
        raise UserError(
            f"--format {name}: the package {lacking} is not installed; install the extra: "
            f"pip install 'bcd[{found.EXTRA}]'"
        )
    return found


def format_of(path: Path) -> str:
    """The format of an exported file, by its suffix; raises UserError for another suffix."""
    for name in EXPORTERS:
        if path.suffix == of_name(name).SUFFIXES[0]:
            return name
    raise UserError(f"{path} is no exported file; give a file that `bcd export` wrote, or a run")
