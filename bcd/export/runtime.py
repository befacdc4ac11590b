"""An exported file of any format, or a finished run in PyTorch, behind one function."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bcd.errors import UserError
from bcd.export.formats import Call, Files, exporter, format_of
from bcd.export.sidecar import Metadata
from bcd.files import read_bytes
from bcd.runs.jsonfile import parse_as

if TYPE_CHECKING:
    from torch import nn

PYTORCH = "pytorch"  # what `Metadata.format` is of a run that was not exported
OURS = "export it again with `bcd export`"


@dataclass(frozen=True)
class Opened:
    """A model in a runtime; `name` is for messages, `call` maps an input to the outputs in the metadata's order."""

    name: str
    metadata: Metadata
    call: Call

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of images float32 (N, 3, H, W), normalised as the metadata's view says, by name.

        A segmentor's `logits` are float32 (N, classes, H, W). Raises UserError for an input of another shape, size or
        dtype than the file takes.
        """
        self._check(images)
        return dict(zip(self.metadata.outputs, self.call(images), strict=True))

    def _check(self, images: np.ndarray) -> None:
        view = self.metadata.view
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1] != 3:
            raise UserError(
                f"{self.name}: takes float32 (N, 3, H, W), not {images.dtype} {images.shape}; normalise RGB images as "
                "its metadata says"
            )
        height, width = images.shape[2:]
        if not self.metadata.dynamic and (height, width) != (view.height, view.width):
            raise UserError(
                f"{self.name}: takes images of {view.height} x {view.width} (height x width), not {height} x {width}; "
                "resize them, or export with --dynamic"
            )


def open_file(path: str | Path, threads: int | None = None) -> Opened:
    """An exported file in its runtime on the CPU.

    threads: that the runtime may use; None leaves it to the runtime.

    Raises UserError for a file that is missing or not ours, and where the format's extra is not installed.

    Example:
        opened = open_file("student.onnx", threads=1)
        logits = opened.run(images)["logits"]  # images float32 (N, 3, H, W)
    """
    path = Path(path)
    found = exporter(format_of(path))
    files = {suffix: read_bytes(path.with_suffix(suffix)) for suffix in found.SUFFIXES}
    return open_bytes(files, path, format_of(path), threads)


def open_bytes(files: Files, path: Path, name: str, threads: int | None = None) -> Opened:
    """The files of format `name`, which lie or will lie at `path`, in their runtime; raises what `open_file` raises."""
    try:
        text, call = exporter(name).session(files, threads)
    except UserError as error:
        raise UserError(f"{path}: {error}; {OURS}") from error
    return Opened(str(path), _metadata(text, path), call)


def _metadata(text: str | None, path: Path) -> Metadata:
    if text is None:
        raise UserError(f"{path} was not written by `bcd export`: it does not say how images are shown; {OURS}")
    try:
        return parse_as(Metadata, json.loads(text))
    except ValueError as error:
        raise UserError(f"{path} holds metadata of another version of this program ({error}); {OURS}") from error


def torch_call(module: nn.Module) -> Call:
    """A graph's module as PyTorch runs it, in evaluation mode."""
    import torch

    def call(images: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [output.numpy() for output in module(torch.from_numpy(images))]

    return call
