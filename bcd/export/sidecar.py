"""What stands in an exported file (`Metadata`) and in the JSON beside it (`Sidecar`)."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from bcd.config.schema.base import TaskName
from bcd.config.schema.exports import Precision
from bcd.config.schema.recipes import Resize, Sliding
from bcd.runs.jsonfile import Json

# Instructions that decide how fast int8 and bfloat16 are, as Linux calls them on x86 and ARM.
TELLING_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16",
)  # fmt: skip


class View(Json):
    """How an image becomes an input: float32 (N, 3, H, W), `(pixel - mean) / std` of RGB pixels in 0..255.

    read_size    height and width that an image is first resized to, or None
    resize       then its short side becomes the largest of these, or None
    pad          a detector's input is padded below and to the right to a multiple of it, or None
    height, width  of the input; where the file is dynamic, of those that its dataset gave
    sliding      windows of this size are evaluated, and their logits averaged, or None
    """

    mean: list[float]
    std: list[float]
    colour_order: Literal["RGB"] = "RGB"
    read_size: list[int] | None = None
    resize: Resize | None = None
    pad: int | None = None
    height: int
    width: int
    sliding: Sliding | None = None


class Metadata(Json):
    """What a file says of itself, one JSON text under the name `bcd`.

    run      hash of the run, its folder in the store
    classes  names in the order of their ids; `palette` has a colour, red, green, blue, for each
    outputs  names of what the graph returns; a segmentor's `logits` are float32 (N, classes, H, W)
    dynamic  whether height and width may differ from those of `view`; the number of images always may
    decoding what turns a detector's raw outputs into boxes, see `bcd.export.decode`; None for a segmentor
    """

    version: Literal[1] = 1
    task: TaskName
    key: str
    run: str
    weights_sha256: str
    model: str
    format: str
    precision: Precision
    dynamic: bool
    classes: list[str]
    palette: list[list[int]]
    view: View
    outputs: list[str]
    decoding: dict[str, Any] | None = None


class Parity(Json):
    """How far the runtime is from PyTorch on real images of the run's dataset.

    images      their names
    sizes       heights and widths that they were shown at
    largest     largest absolute difference in a logit, over all images and sizes
    changed     share of pixels, 0..1, whose class differs; of locations, for a detector
    limit       what `largest` may be; None where nothing is refused, as for int8
    """

    images: list[str]
    sizes: list[list[int]]
    largest: float
    changed: float
    limit: float | None


class Calibration(Json):
    """What int8 ranges were measured on.

    split, images, seed  how many images of which split, drawn by which seed
    scheme               of the toolchain: NNCF's preset, or the types of onnxruntime's activations and weights
    kept                 operations that stay in float
    """

    split: str
    images: int
    seed: int
    scheme: str
    kept: list[str]


class Cpu(Json):
    """The processor of the export; `flags` are those that decide about the speed of int8 and bfloat16."""

    name: str
    flags: list[str]


class Sidecar(Json):
    """The JSON beside an exported file. Equal exports on one machine give equal bytes: it holds no time.

    files      name -> sha256 of what was written; OpenVINO's weights are a second file
    toolchain  package -> version
    """

    metadata: Metadata
    files: dict[str, str]
    bytes: int
    toolchain: dict[str, str]
    opset: int | None
    calibration: Calibration | None
    cpu: Cpu
    parity: Parity


def sidecar_path(file: Path) -> Path:
    """Where the JSON of an exported file lies."""
    return file.with_name(f"{file.name}.json")


def toolchain(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python, of this program, of torch and of the given packages, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in ("bcd", "torch", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def cpu() -> Cpu:
    """This machine's processor; without /proc/cpuinfo its architecture alone is known."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    pairs = [line.partition(":") for line in lines if ":" in line]
    facts = {name.strip(): value.strip() for name, _, value in reversed(pairs)}  # of the first processor
    flags = set(f"{facts.get('flags', '')} {facts.get('Features', '')}".split())
    return Cpu(
        name=facts.get("model name") or platform.processor() or platform.machine(),
        flags=[flag for flag in TELLING_FLAGS if flag in flags],
    )
